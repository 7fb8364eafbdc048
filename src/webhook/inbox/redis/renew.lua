-- Says that a node is alive and still at work on what it has claimed.
--
-- ARGV  node, then destination and stream id of each claim
local node = ARGV[1]
for i = 2, #ARGV, 2 do
    local ready, at = ready_key(ARGV[i]), ARGV[i + 1]
    if redis.call('EXISTS', ready) == 1 and #redis.call('XPENDING', ready, GROUP, at, at, 1, node) > 0 then
        redis.call('XCLAIM', ready, GROUP, node, 0, at, 'JUSTID')
    end
end
return 'ok'
