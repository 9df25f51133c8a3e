-- What all scripts share. Keys: <prefix>:b:<limit>:<caller>[:<start>] a bucket (s spent, r reserved, c carried over;
-- of a sliding window a field b<bin> for each bin), <prefix>:r:<call> a reservation (bucket -> amount),
-- <prefix>:leases when reservations end, <prefix>:w:<limit>:<writer> the last line of a writer that was counted against
-- a limit, <prefix>:epoch a word that is gone when the server has lost what it was told.
-- Amounts are decimal strings: they are only ever added by HINCRBY, which is exact where Lua's numbers are not.
local prefix = ARGV[1]
local clock = redis.call('TIME')
local now = tonumber(clock[1]) + tonumber(clock[2]) / 1000000

local function number(key, field)
    return tonumber(redis.call('HGET', key, field) or '0')
end

-- Whether the server is not the one that a proxy has told all it knows ('': it does not ask).
local function emptied(epoch)
    return epoch ~= '' and redis.call('GET', prefix .. ':epoch') ~= epoch
end

-- A sum that is too large for the server stays the largest there is: an error in the middle of a script would leave
-- half of what it does undone.
local function add(key, field, amount)
    local sum = redis.pcall('HINCRBY', key, field, amount)
    if type(sum) == 'table' then
        redis.call('HSET', key, field, '9223372036854775807')
    end
    return sum
end

local function release(ident)
    local held = redis.call('HGETALL', prefix .. ':r:' .. ident)
    for i = 1, #held, 2 do
        if redis.call('EXISTS', held[i]) == 1 and held[i + 1] ~= '0' then
            local left = add(held[i], 'r', '-' .. held[i + 1])
            if type(left) == 'number' and left < 0 then
                redis.call('HSET', held[i], 'r', '0') -- its sum was cut, or its bucket is another one since
            end
        end
    end
    redis.call('DEL', prefix .. ':r:' .. ident)
    redis.call('ZREM', prefix .. ':leases', ident)
end

local function hold(ident, key, amount, lease)
    add(key, 'r', amount)
    add(prefix .. ':r:' .. ident, key, amount)
    redis.call('ZADD', prefix .. ':leases', now + lease, ident)
    redis.call('EXPIRE', prefix .. ':r:' .. ident, 604800)
end

-- What a sliding window holds; bins that have left it are taken off.
local function slid(key, need)
    local sum, oldest = 0, now
    local fields = redis.call('HGETALL', key)
    for i = 1, #fields, 2 do
        if string.sub(fields[i], 1, 1) == 'b' then
            local begin = tonumber(string.sub(fields[i], 2)) * need.bin
            if begin + need.span + need.bin <= now then
                redis.call('HDEL', key, fields[i])
            else
                sum = sum + tonumber(fields[i + 1])
                oldest = math.min(oldest, begin)
            end
        end
    end
    return sum, oldest + need.span + need.bin
end

local function lives(key, till)
    if till and till < 32503680000 then
        redis.call('EXPIREAT', key, math.ceil(till))
    end
end

-- Seconds for which a window is kept when it is over: the next one asks what it overdrew.
local function grace(length)
    return math.min(math.max(length, 3600), 2678400)
end

local function exact(value)
    return string.format('%.0f', value)
end

-- Where the last line of a writer stands that was counted against a limit. Whoever sends lines of a writer sends all
-- that matter, in their order: so this one tells of all before it.
local function mark_of(limit, writer)
    return prefix .. ':w:' .. limit .. ':' .. writer
end

-- It is remembered for longer than the buckets that any line until now may be counted in.
local function remember(mark, seq, charge)
    redis.call('SET', mark, seq)
    if charge.bin then
        lives(mark, now + 3 * charge.span)
    elseif charge.till then
        lives(mark, now + 1.2 * charge.length + grace(charge.length) + 172800)
    end
end

-- The bucket of a charge.
local function key_of(charge)
    return charge.bin and charge.base or charge.base .. ':' .. exact(charge.start)
end

local function spend(charge)
    local key = key_of(charge)
    if not charge.bin then
        add(key, 's', charge.amount)
        lives(key, charge.till and charge.till + grace(charge.length))
    elseif charge.amount ~= '0' then
        add(key, 'b' .. exact(charge.at), charge.amount)
        lives(key, now + 2 * charge.span)
    end
end
