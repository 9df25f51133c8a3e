-- A reservation becomes what was spent, once: a line that was counted against a limit is not counted again.
-- ARGV: prefix, call, writer, number of its line (-1: none), charges as JSON, epoch.
-- Returns {spent, reserved} of each bucket afterwards, or 'emptied' (nothing was done).
if emptied(ARGV[6]) then
    return 'emptied'
end
local ident, writer, seq, charges = ARGV[2], ARGV[3], tonumber(ARGV[4]), cjson.decode(ARGV[5])
release(ident)

local states = {}
for i, charge in ipairs(charges) do
    local mark = mark_of(charge.limit, writer)
    if seq < 0 then
        spend(charge)
    elseif seq > tonumber(redis.call('GET', mark) or '-1') then
        spend(charge)
        remember(mark, ARGV[4], charge)
    end
    local key = key_of(charge)
    local spent = charge.bin and exact(slid(key, charge)) or redis.call('HGET', key, 's') or '0'
    states[i] = {spent, redis.call('HGET', key, 'r') or '0'}
end
return states
