-- flush of the storage; whoever waits for a result is told to look again
local waiting = redis.call('HGETALL', K.wait)
redis.call('UNLINK', K.rec, K.res, K.run, K.done, K.dead, K.uniq, K.cancel, K.wait, K.count, K.ord, K.items, K.itemn)
for i = 1, #waiting, 2 do
  for channel in string.gmatch(waiting[i + 1], '%S+') do redis.call('PUBLISH', channel, waiting[i]) end
end
return 'OK'
