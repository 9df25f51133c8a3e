-- All of a call's needs or none: one step over every bucket it touches, by the server's clock.
-- ARGV: prefix, call, lease in seconds, needs as JSON, epoch. A fixed window comes as [start, end] of the one that the
-- caller takes for the present one and of the next; the server's clock decides.
-- Returns {word, now, states}: yes, no, clock (neither window is the present one), or emptied (nothing was done).
if emptied(ARGV[5]) then
    return {'emptied', '0', {}}
end
local ident, lease, needs = ARGV[2], tonumber(ARGV[3]), cjson.decode(ARGV[4])
for _, old in ipairs(redis.call('ZRANGEBYSCORE', prefix .. ':leases', '-inf', now, 'LIMIT', 0, 50)) do
    release(old)
end
release(ident)

local keys, tills, states, full = {}, {}, {}, false
for i, need in ipairs(needs) do
    local key, spent, start, till, carried = need.base, 0, 0, 0, 0
    if need.bin then
        spent, till = slid(key, need)
        tills[i] = now + 2 * need.span
    else
        local found = nil
        for _, window in ipairs(need.windows) do
            if window[1] <= now and now < window[2] then
                found = window
            end
        end
        if not found then
            return {'clock', tostring(now), {}}
        end
        start, till = found[1], found[2]
        key = key .. ':' .. exact(start)
        spent = number(key, 's')
        if need.burst > 0 then
            local before = need.base .. ':' .. exact(found[3])
            local over = number(before, 's') + number(before, 'r') + number(before, 'c') - need.amount
            carried = math.max(0, math.min(over, need.burst))
        end
        tills[i] = till + grace(till - start)
    end
    local reserved, wants = number(key, 'r'), tonumber(need.wants)
    local total, most = spent + reserved + carried + wants, need.amount + need.burst
    if need.hard and (total > most or (wants == 0 and total == most)) then
        full = true
    end
    keys[i] = {key, carried}
    states[i] = {exact(spent), exact(reserved), exact(carried), tostring(start), tostring(till)}
end
if full then
    return {'no', string.format('%.6f', now), states}
end
for i, need in ipairs(needs) do
    hold(ident, keys[i][1], need.wants, lease)
    if keys[i][2] > 0 then
        redis.call('HSET', keys[i][1], 'c', exact(keys[i][2]))
    end
    lives(keys[i][1], tills[i])
end
return {'yes', string.format('%.6f', now), states}
