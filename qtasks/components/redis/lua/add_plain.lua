--@include base
--@queues
-- add_and_push of new tasks as most are: due at once, without unique key and token; the caller sees to that. ARGV as
-- add_push. Gives an A for each. Where one has a uuid that somebody has, or its queue is full, it gives nothing and has
-- changed nothing, and the caller asks add_push. It writes what add_push would write, without the tables by which that
-- looks at everything else: to a single task those cost more than all that it needs.
-- Behind a single task may stand the channel of a client that will most likely wait for the result. Where the task is
-- handed over, word is left for it as by wait.lua, and the answer is an H.

-- A single task: straight code. Commands are what it costs, so it has as few as it can, and no function: the server
-- would make that anew for each call.
if #ARGV <= 5 then
  local call, pack, unpack = redis.call, struct.pack, struct.unpack
  local id, _, priority = unpack('>c16Hh', ARGV[3])
  if call('HEXISTS', K.res, id) + call('HEXISTS', K.ent, id) > 0 then return nil end
  local name, part, ready, channel = ARGV[1], ARGV[4], KEYS[FIXED + 1], nil
  local word, seconds, owner, now, lapsed

  -- It is handed to a worker at rest by the message that would only wake it, if nothing is due before it: that saves the
  -- claim's round trip. (Large ones would fill what the server keeps for a listener.)
  local idle = call('HGETALL', K.wake)
  if #idle > 0 and #part <= 65536 and call('ZCARD', ready) == 0 then
    local time, first = call('TIME'), call('ZRANGE', KEYS[FIXED + 2], 0, 0, 'WITHSCORES')[2]
    now = tonumber(time[1]) + tonumber(time[2]) / 1e6
    local n, turn = #idle / 2, tonumber(time[2])
    if first and tonumber(first) <= now then n = 0 end
    if ARGV[2] ~= '' and call('ZCARD', KEYS[FIXED + 2]) >= tonumber(ARGV[2]) then n = 0 end

    -- On which terms, says the word (its form: rest.lua). One without any, of a busy worker or of another version, is only
    -- woken. The first that is looked at is another one each time.
    for i = 1, n do
      local at = 2 * ((turn + i) % n) + 1
      word = idle[at + 1]
      local terms = string.find(word, '\n', 1, true)
      local size, named = terms and string.byte(word, terms + 17), string.find(word, ' ' .. name .. ' ', 1, true)
      if size and #word >= terms + 17 + size and named and named < terms then
        local last = string.sub(word, terms + 18, terms + 17 + size)
        local ends, lease = unpack('>dd', word, terms + 1)
        if ends < now then
          lapsed = lapsed or {}
          lapsed[#lapsed + 1] = idle[at]
        elseif last == '' or call('HEXISTS', K.ent, last) == 0 then
          -- PUBLISH would tell all nodes of a Cluster, and count the listeners of this one only when it has.
          local heard = redis.pcall('PUBSUB', 'NUMSUB', idle[at])[2]
          if heard and heard > 0 then
            channel, seconds, owner = idle[at], lease, string.sub(word, terms + 18 + size)
            word = string.sub(word, 1, terms + 16)
            break
          end
        end
      end
    end
  end

  -- Where the queue has to be looked at, or workers have to be woken, it goes on as a batch.
  if channel or #idle == 0 and ARGV[2] == '' then
    -- What a full server, or one that takes no writes, refuses is left to add_push, which knows what is there already.
    local number = redis.pcall('INCRBY', K.seq, 1)
    if type(number) ~= 'number' then return nil end
    local record = pack('>c1I6', 'R', number) .. part
    if call('HSETNX', K.rec, id, record) == 0 then
      call('INCRBY', K.seq, -1)
      return nil
    end
    -- Whether a hash outgrows a list (see hset) is looked at by every sixteenth record.
    local looks = number % 16 == 0
    if looks then
      local size = call('HLEN', K.rec)
      if size > 16 and size <= 32 then
        call('HSET', K.rec, id, string.rep(' ', 1025))
        call('HSET', K.rec, id, record)
      end
    end
    call('SADD', K.queues, name)
    call('XADD', K.ord, number, 'u', id)
    local score = (priority + 128) * 35184372088832 + number
    if not channel then
      call('ZADD', ready, score, id)
      return 'A'
    end

    -- What claim_start would write, and tell: the entry and the record as they stand. The word ends with the task that
    -- its worker has to settle now before it is handed another one. What nobody renewed any more is cleared away.
    local epoch, tail, began = call('INCRBY', K.epoch, 1), pack('>Hc0', #owner, owner), pack('>d', now)
    local entry = pack('>c1BI4dd', 'L', 0, 1, score, epoch) .. string.sub(part, 2, 9) .. tail .. name
    if looks and call('HLEN', K.ent) > 16 then call('HSET', K.ent, id, string.rep(' ', 1025)) end
    if looks and call('HLEN', K.run) > 16 then call('HSET', K.run, id, string.rep(' ', 1025)) end
    call('HSET', K.ent, id, entry)
    call('HSET', K.run, id, pack('>c1dI4', 'P', epoch, 1) .. began .. began .. tail)
    call('ZADD', KEYS[FIXED + 3], now + seconds, id)
    call('HSET', K.wake, channel, word .. '\16' .. id .. owner)
    if ARGV[5] then call('HSET', K.wait, id, ARGV[5]) end
    call('PUBLISH', channel, id .. entry .. '\n' .. began .. record)
    for i = 1, lapsed and #lapsed or 0 do call('HDEL', K.wake, lapsed[i]) end
    return ARGV[5] and 'H' or 'A'
  end
end
--@definitions
-- The uuids of a batch, and what each of its queues gets: scores, counted from the first of the batch, and uuids.
-- Nothing where it has a uuid twice.
local function plain_batch(n)
  local ids, seen, places = {}, {}, {}
  for i = 1, n do
    local id, index, priority = unpack_struct('>c16Hh', ARGV[2 * i + 1])
    if seen[id] then return nil end
    ids[i], seen[id] = id, true
    local place = places[index]
    if not place then
      place = {}
      places[index] = place
    end
    local m = #place
    place[m + 1], place[m + 2] = (priority + 128) * PRIORITY_STEP + i, id
  end
  return ids, places
end

local function nobody_has(key, ids)
  local found = call('HMGET', key, unpack(ids))
  for i = 1, #found do
    if found[i] then return false end
  end
  return true
end

local function queue_key(index, which) return KEYS[FIXED + 3 * index + which] end

local function has_room(places, most)
  if not most then return true end
  for index, place in pairs(places) do
    local waiting = call('ZCARD', queue_key(index, 1)) + call('ZCARD', queue_key(index, 2))
    if waiting + #place / 2 > most then return false end
  end
  return true
end

local function write_plain(ids, places, n)
  local names, records = {}, {}
  for name in string.gmatch(ARGV[1], '%S+') do names[#names + 1] = name end
  local before = call('INCRBY', K.seq, n) - n
  for i = 1, n do
    records[2 * i - 1], records[2 * i] = ids[i], pack('>c1I6', 'R', before + i) .. ARGV[2 * i + 2]
  end
  hset(K.rec, records, 1, 2 * n)
  for index, place in pairs(places) do
    for i = 1, #place, 2 do place[i] = place[i] + before end
    local name = names[index + 1]
    call('ZADD', queue_key(index, 1), unpack(place))
    call('SADD', K.queues, name)
    arrivals[name] = #place / 2
  end
  for i = 1, n do call('XADD', K.ord, string.format('%d-0', before + i), 'u', ids[i]) end
end

local n = math.floor((#ARGV - 2) / 2)
if 2 * n + 3 > MOST then return nil end
local ids, places = plain_batch(n)
if not ids or not (nobody_has(K.rec, ids) and nobody_has(K.res, ids) and nobody_has(K.ent, ids)) then return nil end
if not has_room(places, tonumber(ARGV[2])) then return nil end
write_plain(ids, places, n)
wake_up()
return string.rep('A', n)
