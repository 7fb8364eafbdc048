-- Forgets what is past its time, and nodes that were not seen for long; 1 = there may be more to do.
--
-- ARGV  now, the delivered that ended before, the dead that ended before, most delivered bytes, most
--       entries at a time, idle time of a node (ms)
local now, most = ARGV[1], tonumber(ARGV[5])
local more = shrink_delivered(tonumber(ARGV[4]), now, most)
for i, standing in ipairs({'delivered', 'dead'}) do
    local ended = redis.call('ZRANGEBYSCORE', ended_key(standing), '-inf', '(' .. ARGV[i + 1], 'LIMIT', 0, most)
    for _, id in ipairs(ended) do
        local e = read(id)
        if e then
            erase(id, e, now)
        else
            redis.call('ZREM', ended_key(standing), id)
        end
    end
    more = more or #ended == most
end
for _, destination in ipairs(redis.call('SMEMBERS', P .. ':destinations')) do
    local ready = ready_key(destination)
    if redis.call('EXISTS', ready) == 1 then
        for _, consumer in ipairs(redis.call('XINFO', 'CONSUMERS', ready, GROUP)) do
            local c = {}
            for i = 1, #consumer, 2 do
                c[consumer[i]] = consumer[i + 1]
            end
            if c.pending == 0 and c.idle > tonumber(ARGV[6]) then
                redis.call('XGROUP', 'DELCONSUMER', ready, GROUP, c.name)
            end
        end
    end
end
return more and 1 or 0
