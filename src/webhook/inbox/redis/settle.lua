-- Ends claims. What was discarded stays gone; what is no longer pending stays as it is.
--
-- ARGV  now, node, most delivered bytes, then for each: id, verb, attempt, its time, due, reason
local now, node = ARGV[1], ARGV[2]
for i = 4, #ARGV, 6 do
    local id, verb, attempt, at, due, reason =
        ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], ARGV[i + 4], ARGV[i + 5]
    local e = read(id)
    if e and e.standing == 'pending' then
        if verb == 'unclaim' then
            -- Not if the lease has run out and another node is at it.
            if is_claimed(e, node) then
                make_later(id, e, e.due)
            end
        else
            redis.call('HINCRBY', entry_key(id), 'attempts', 1)
            redis.call('RPUSH', history_key(id), attempt)
            redis.call('LTRIM', history_key(id), -HISTORY_MAX, -1)
            if verb == 'delivered' then
                finish(id, e, 'delivered', '', now)
            else
                redis.call('HSETNX', entry_key(id), 'first_failed_at', at)
                if verb == 'dead' then
                    finish(id, e, 'dead', reason, now)
                else
                    make_later(id, e, due)
                    if verb == 'yield' then
                        leave_lane(id, e, now)
                    end
                end
            end
        end
    end
end
shrink_delivered(tonumber(ARGV[3]), now, 200)
return 'ok'
