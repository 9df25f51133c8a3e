-- What ledgers have and the server has not counted, as sums. ARGV: prefix, sums as JSON, epoch.
-- A sum is what a writer's lines behind the last one that was counted, up to another one, took from a limit: where
-- somebody has counted one of them meanwhile, nothing of it is.
-- Returns how many were not counted, or 'emptied' (nothing was done).
if emptied(ARGV[3]) then
    return 'emptied'
end
local left = 0
for _, sum in ipairs(cjson.decode(ARGV[2])) do
    local mark = mark_of(sum.limit, sum.writer)
    if (redis.call('GET', mark) or '-1') == sum.last then
        for _, charge in ipairs(sum.charges) do
            spend(charge)
            remember(mark, sum.seq, charge)
        end
    else
        left = left + 1
    end
end
return left
