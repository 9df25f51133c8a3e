-- A running call holds more, whatever the limits say. ARGV: prefix, call, lease, charges as JSON.
for _, more in ipairs(cjson.decode(ARGV[4])) do
    hold(ARGV[2], key_of(more), more.amount, tonumber(ARGV[3]))
end
return 1
