-- Makes entries due again; says how many. One that waits behind another of its lane is left alone.
--
-- ARGV  now, then id and due time of each
local now, touched = ARGV[1], 0
for i = 2, #ARGV, 2 do
    local id, due = ARGV[i], ARGV[i + 1]
    local e = read(id)
    if e and not (e.standing == 'pending' and e.at == '') then
        if e.standing ~= 'pending' then
            stand(id, e, 'pending')
            redis.call('HDEL', entry_key(id), 'ended_at', 'reason')
            make_later(id, e, due)
        elseif is_claimed(e) then
            -- The attempt in flight goes on; its claim must not go to anybody else.
            redis.call('HSET', entry_key(id), 'due', due)
        else
            make_later(id, e, due)
        end
        -- The policy's patience begins anew.
        redis.call('HSET', entry_key(id), 'attempts', 0, 'redelivered_at', now)
        redis.call('HDEL', entry_key(id), 'first_failed_at')
        touched = touched + 1
    end
end
return touched
