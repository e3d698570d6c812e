-- counts: open, dead, then the counters
return { redis.call('HLEN', K.rec), redis.call('ZCARD', K.dead), redis.call('HGETALL', K.count) }
