-- When the first unclaimed entry is due, or nothing.
--
-- ARGV  destination
local ready, later = ready_key(ARGV[1]), later_key(ARGV[1])
local first = redis.call('ZRANGE', later, 0, 0, 'WITHSCORES')[2]
local due = first and tonumber(first)
if redis.call('EXISTS', ready) == 1 then
    local group = {}
    for _, item in ipairs(redis.call('XINFO', 'GROUPS', ready)) do
        for i = 1, #item, 2 do
            group[item[i]] = item[i + 1]
        end
    end
    local new = redis.call('XRANGE', ready, '(' .. group['last-delivered-id'], '+', 'COUNT', 1)[1]
    local at = new and tonumber(redis.call('HGET', entry_key(new[2][2]), 'due') or '')
    if at and (not due or at < due) then
        due = at
    end
end
return due and string.format('%.0f', due) or ''
