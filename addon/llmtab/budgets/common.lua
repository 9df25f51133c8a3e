-- What all scripts share. Keys: <prefix>:b:<limit>:<caller>[:<start>] a bucket (s spent, r reserved, c carried over;
-- of a sliding window a field b<bin> for each bin), <prefix>:r:<call> a reservation (bucket -> amount),
-- <prefix>:leases when reservations end, <prefix>:w:<writer> the last line that was counted of a writer.
-- Amounts are decimal strings: they are only ever added by HINCRBY, which is exact where Lua's numbers are not.
local prefix = ARGV[1]
local clock = redis.call('TIME')
local now = tonumber(clock[1]) + tonumber(clock[2]) / 1000000

local function number(key, field)
    return tonumber(redis.call('HGET', key, field) or '0')
end

local function release(ident)
    local held = redis.call('HGETALL', prefix .. ':r:' .. ident)
    for i = 1, #held, 2 do
        if redis.call('EXISTS', held[i]) == 1 and held[i + 1] ~= '0' then
            redis.call('HINCRBY', held[i], 'r', '-' .. held[i + 1])
        end
    end
    redis.call('DEL', prefix .. ':r:' .. ident)
    redis.call('ZREM', prefix .. ':leases', ident)
end

local function hold(ident, key, amount, lease)
    redis.call('HINCRBY', key, 'r', amount)
    redis.call('HINCRBY', prefix .. ':r:' .. ident, key, amount)
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

local function exact(value)
    return string.format('%.0f', value)
end
