-- Gives back what a node has claimed, some at a time; 1 = there is more. Then the node is forgotten.
--
-- ARGV  node, most entries at a time
local node, most, more = ARGV[1], tonumber(ARGV[2]), 0
for _, destination in ipairs(redis.call('SMEMBERS', P .. ':destinations')) do
    local ready = ready_key(destination)
    if redis.call('EXISTS', ready) == 1 then
        local pending = redis.call('XPENDING', ready, GROUP, '-', '+', most, node)
        for _, item in ipairs(pending) do
            local at = item[1]
            local found = redis.call('XRANGE', ready, at, at)[1]
            local id = found and found[2][2]
            local e = id and read(id)
            if e and e.standing == 'pending' and e.at == at then
                make_later(id, e, e.due)
            else
                redis.call('XACK', ready, GROUP, at)
            end
        end
        if #pending == most then
            more = 1
        else
            redis.call('XGROUP', 'DELCONSUMER', ready, GROUP, node)
        end
    end
end
return more
