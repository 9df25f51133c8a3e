-- Calls that still run, and those that are given back. ARGV: prefix, lease, running as JSON, over as JSON.
for _, ident in ipairs(cjson.decode(ARGV[3])) do
    redis.call('ZADD', prefix .. ':leases', 'XX', now + tonumber(ARGV[2]), ident)
end
for _, ident in ipairs(cjson.decode(ARGV[4])) do
    release(ident)
end
return 1
