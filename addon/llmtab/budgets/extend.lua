-- A running call holds more, whatever the limits say. ARGV: prefix, call, lease, charges as JSON.
for _, more in ipairs(cjson.decode(ARGV[4])) do
    local key = more.bin and more.base or more.base .. ':' .. exact(more.start)
    hold(ARGV[2], key, more.amount, tonumber(ARGV[3]))
end
return 1
