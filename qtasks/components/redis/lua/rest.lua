-- The word of a worker that rests: a field of the hash `wake`, named by the channel where it can be told. In its value stand
--   ' ' before each of the queues that it serves, and behind the last; whoever looks for one, looks no further than that
--   '\n' and the terms on which it may be handed a task; without them, as of a busy worker, it is only woken:
--     >d  until when (server's time, seconds): a worker that does not renew its word is stuck, or dead
--     >d  how long its lease is (seconds)
--     B   the length of the uuid that follows, 16 or 0
--         the task that it was given last: while that is not settled, it may be busy
--         its owner, to the end
-- It is written here, and by add_plain.lua, which puts in the task that it hands over. It is taken away by who tells a worker
-- by it (tell in base.lua), by the next claim that has more to do (plain_claim.lua), where it has run out (add_plain.lua), and
-- by the process whose channel it is, when that stops, closes or connects anew.

-- A worker that found less than it wanted leaves word where it can be told of more, and on which terms; a full server may
-- refuse that, which costs latency only. Gives the seconds until the next entry is due, '' where none waits, '0' and no word
-- where there is more.
local function rest_until_due(channel, names, terms)
  for key = FIXED + 1, #KEYS, 3 do
    if call('ZCARD', KEYS[key]) > 0 then return '0' end
  end
  if channel ~= '' then redis.pcall('HSET', K.wake, channel, ' ' .. names .. ' ' .. terms) end
  local due = ''
  for key = FIXED + 2, #KEYS, 3 do
    local first = call('ZRANGE', KEYS[key], 0, 0, 'WITHSCORES')
    if first[2] and (due == '' or tonumber(first[2]) < due) then due = tonumber(first[2]) end
  end
  return due == '' and '' or text(math.max(due - now, 0))
end
