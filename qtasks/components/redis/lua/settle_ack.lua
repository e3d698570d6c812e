--@include base plain_end lib broker storage both
--@queues
-- settle_and_ack: the outcome, the tasks that follow from it, and the end of the delivery (R2, R6). Most batches end in
-- plain_end.lua; of the others it has done what it could.

-- A single end as plain_end.lua writes it, by straight code (see add_plain.lua). Anything else is left to the rest.
if #ARGV == 3 then
  local call, sub, byte, arg = redis.call, string.sub, string.byte, ARGV[2]
  local id, epoch, owner, outcome = sub(arg, 1, 16), sub(arg, 17, 24), sub(arg, 38), sub(arg, 25, 26)
  if (outcome == 's\0' or outcome == 'e\0' or outcome == 'c\0') and sub(arg, 35, 37) == '\0\0\0' then
    local value, token, entry = call('HGET', K.rec, id), call('HGET', K.run, id), call('HGET', K.ent, id)
    local flags = value and byte(value) == 82 and byte(value, 8) -- 'R'
    if flags and flags < 2 and #value >= 32 + 8 * flags
      and token and sub(token, 1, 9) == 'P' .. epoch and sub(token, 30) == owner
      and entry and byte(entry) == 76 and sub(entry, 15, 22) == epoch and sub(entry, 31) == owner .. ARGV[1] -- 'L'
      and not call('HGET', K.cancel, id) then
      local channels = call('HGET', K.wait, id)
      local result = 'F' .. sub(arg, 25, 34) .. struct.pack('>H', #token) .. token .. value .. '\n' .. ARGV[3]
      call('HDEL', K.rec, id)
      call('HDEL', K.run, id)
      call('HDEL', K.ent, id)
      if channels then call('HDEL', K.wait, id) end
      call('ZREM', KEYS[FIXED + 3], id)
      call('HSET', K.res, id, result)
      call('ZADD', K.done, struct.unpack('>d', arg, 27), id)
      if outcome ~= 's\0' then call('HINCRBY', K.count, sub(outcome, 1, 1), 1) end
      if channels then
        for channel in string.gmatch(channels, '%S+') do call('PUBLISH', channel, id .. result) end
      end
      return 'A'
    end
  end
end
--@definitions
local ids, i = settled_ids(2), 2
ent:load(ids)

local function settle_any(n, id)
  local verdict, epoch, owner, more, nack = settle(i)
  verdicts[n] = verdict
  if verdict == 'A' then
    for follows = i + 2, i + 2 * more, 2 do add_and_enqueue(ARGV[follows], ARGV[follows + 1]) end
  end
  local q = verdict ~= 'R' and held_in(id, epoch, owner)
  if q and nack then
    put_back(id, entry(id), nack[1], nack[2], nack[3])
  elseif q then
    forget(id, q)
  end
  i = i + 2 + 2 * more
end

for n = 1, #ids do
  if verdicts[n] then i = i + 2 else settle_any(n, ids[n]) end
end
commit()
confirm()
raise_epoch()
publish()
wake_up()
return table.concat(verdicts)
