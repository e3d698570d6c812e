-- counts: records that are open, and those of them that have a token; finished ones, and the dead of them; the counters
return { redis.call('HLEN', K.rec), redis.call('HLEN', K.run), redis.call('ZCARD', K.done), redis.call('ZCARD', K.dead),
  redis.call('HGETALL', K.count) }
