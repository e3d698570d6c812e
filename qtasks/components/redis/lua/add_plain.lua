--@include base
--@queues
-- add_and_push of new tasks as most are: due at once, without unique key and token; the caller sees to that. ARGV as
-- add_push. Gives an A for each. Where one has a uuid that somebody has, or its queue is full, it gives nothing and has
-- changed nothing, and the caller asks add_push. It writes what add_push would write, without the tables by which that
-- looks at everything else: to a single task those cost more than all that it needs.
-- Behind a single task may stand the channel of a client that will most likely wait for the result. Where the task is
-- handed over, word is left for it as by wait.lua, and the answer is an H.

-- A single task: straight code. Commands are what it costs, so it has as few as it can.
if #ARGV <= 5 then
  local call, pack, unpack = redis.call, struct.pack, struct.unpack
  local id, _, priority = unpack('>c16Hh', ARGV[3])
  local found = call('HEXISTS', K.rec, id) + call('HEXISTS', K.res, id) + call('HEXISTS', K.ent, id)
  if found > 0 then return nil end
  local name, part, ready, delayed, lease = ARGV[1], ARGV[4], KEYS[FIXED + 1], KEYS[FIXED + 2], KEYS[FIXED + 3]

  -- Its record, and its score; all is written but its place in the queue.
  local function store()
    local number = call('INCRBY', K.seq, 1)
    local record = pack('>c1I6', 'R', number) .. part
    -- Whether `rec` outgrows a list (see hset) is looked at by every sixteenth record.
    if number % 16 == 0 then
      local size = call('HLEN', K.rec)
      if size > 16 and size <= 32 then call('HSET', K.rec, id, string.rep(' ', 1025)) end
    end
    call('HSET', K.rec, id, record)
    call('SADD', K.queues, name)
    call('XADD', K.ord, string.format('%d-0', number), 'u', id)
    return record, (priority + 128) * 35184372088832 + number
  end

  local idle = call('HGETALL', K.wake)
  if #idle == 0 then
    if ARGV[2] == '' then
      local _, score = store()
      call('ZADD', ready, score, id)
      return 'A'
    end
  elseif #part <= 65536 and call('ZCARD', ready) == 0 then
    -- It is handed to a worker at rest by the message that would only wake it, if nothing is due before it: that saves
    -- the claim's round trip. (Large ones would fill what the server keeps for a listener.)
    local time, first = call('TIME'), call('ZRANGE', delayed, 0, 0, 'WITHSCORES')[2]
    local now = tonumber(time[1]) + tonumber(time[2]) / 1e6
    if first and tonumber(first) <= now then idle = {} end
    if ARGV[2] ~= '' and call('ZCARD', delayed) >= tonumber(ARGV[2]) then idle = {} end

    -- What claim_start would write, and tell: the entry and the record as they stand. `word` ends with the task that
    -- its worker has to settle now before it is handed another one. What nobody renewed any more is cleared away.
    local lapsed = {}
    local function hand_over(channel, word, seconds, owner)
      local record, score = store()
      local epoch, tail = call('INCRBY', K.epoch, 1), pack('>Hc0', #owner, owner)
      local entry = pack('>c1BI4ddd', 'L', 0, 1, score, epoch, unpack('>d', record, 9)) .. tail .. name
      if call('HLEN', K.ent) == 16 then call('HSET', K.ent, id, string.rep(' ', 1025)) end
      if call('HLEN', K.run) == 16 then call('HSET', K.run, id, string.rep(' ', 1025)) end
      call('HSET', K.ent, id, entry)
      call('HSET', K.run, id, pack('>c1dI4dd', 'P', epoch, 1, now, now) .. tail)
      call('ZADD', lease, string.format('%.17g', now + seconds), id)
      call('HSET', K.wake, channel, word .. pack('>dBc0', seconds, #id, id) .. owner)
      if ARGV[5] then call('HSET', K.wait, id, ARGV[5]) end
      call('PUBLISH', channel, id .. entry .. '\n' .. pack('>d', now) .. record)
      for i = 1, #lapsed do call('HDEL', K.wake, lapsed[i]) end
    end

    -- On which terms, says the word (its form: rest.lua). One without any, of a busy worker or of another version, is only
    -- woken. The first that is looked at is another one each time.
    local n, turn = #idle / 2, tonumber(time[2])
    for i = 1, n do
      local at = 2 * ((turn + i) % n) + 1
      local channel, word = idle[at], idle[at + 1]
      local terms = string.find(word, '\n', 1, true)
      local size, named = terms and string.byte(word, terms + 17), string.find(word, ' ' .. name .. ' ', 1, true)
      if size and #word >= terms + 17 + size and named and named < terms then
        local ends, seconds, last, owner_at = unpack('>ddBc0', word, terms + 1)
        if ends < now then
          lapsed[#lapsed + 1] = channel
        elseif last == '' or call('HEXISTS', K.ent, last) == 0 then
          -- PUBLISH would tell all nodes of a Cluster, and count the listeners of this one only when it has.
          local heard = redis.pcall('PUBSUB', 'NUMSUB', channel)[2]
          if heard and heard > 0 then
            hand_over(channel, string.sub(word, 1, terms + 8), seconds, string.sub(word, owner_at))
            return ARGV[5] and 'H' or 'A'
          end
        end
      end
    end
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
