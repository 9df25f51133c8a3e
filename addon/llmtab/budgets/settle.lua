-- A reservation becomes what was spent, once: a line that was counted before is not counted again.
-- ARGV: prefix, call, writer, number of its line (-1: none), charges as JSON.
-- Returns {spent, reserved} of each bucket afterwards.
local ident, writer, seq, charges = ARGV[2], prefix .. ':w:' .. ARGV[3], tonumber(ARGV[4]), cjson.decode(ARGV[5])
release(ident)
local counted = tonumber(redis.call('GET', writer) or '-1')
local fresh = seq < 0 or seq > counted
if seq > counted then
    redis.call('SET', writer, ARGV[4], 'EX', 3456000)
end
local states = {}
for i, charge in ipairs(charges) do
    local spent
    if charge.bin then
        if fresh and charge.amount ~= '0' then
            redis.call('HINCRBY', charge.base, 'b' .. exact(charge.at), charge.amount)
            lives(charge.base, now + 2 * charge.span)
        end
        spent = slid(charge.base, charge)
        states[i] = {exact(spent), exact(number(charge.base, 'r'))}
    else
        local key = charge.base .. ':' .. exact(charge.start)
        if fresh then
            redis.call('HINCRBY', key, 's', charge.amount)
            lives(key, charge.till and charge.till + math.min(math.max(charge.till - charge.start, 3600), 2678400))
        end
        states[i] = {redis.call('HGET', key, 's') or '0', redis.call('HGET', key, 'r') or '0'}
    end
end
return states
