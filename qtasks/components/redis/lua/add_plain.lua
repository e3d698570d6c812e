--@include base
--@queues
-- add_and_push of new tasks as most are: due at once, without unique key and token; the caller sees to that. ARGV as
-- add_push. Gives an A for each. Where one has a uuid that somebody has, or its queue is full, it gives nothing and has
-- changed nothing, and the caller asks add_push. It writes what add_push would write, without the tables by which that
-- looks at everything else: to a single task those cost more than all that it needs.

-- A single task, while nobody is to be told: straight code. Commands are what it costs, so it has as few as it can: whether
-- `rec` outgrows a list (see hset) is looked at by every sixteenth record.
if #ARGV == 4 and ARGV[2] == '' then
  local call, id, _, priority = redis.call, struct.unpack('>c16Hh', ARGV[3])
  local found = call('HEXISTS', K.rec, id) + call('HEXISTS', K.res, id) + call('HEXISTS', K.ent, id)
  if found > 0 then return nil end
  if call('HLEN', K.wake) == 0 then
    local number = call('INCRBY', K.seq, 1)
    local record = struct.pack('>c1I6', 'R', number) .. ARGV[4]
    if number % 16 == 0 then
      local size = call('HLEN', K.rec)
      if size > 16 and size <= 32 then call('HSET', K.rec, id, string.rep(' ', 1025)) end
    end
    call('HSET', K.rec, id, record)
    call('ZADD', KEYS[FIXED + 1], (priority + 128) * 35184372088832 + number, id)
    call('SADD', K.queues, ARGV[1])
    call('XADD', K.ord, string.format('%d-0', number), 'u', id)
    return 'A'
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

local n = (#ARGV - 2) / 2
if 2 * n + 3 > MOST then return nil end
local ids, places = plain_batch(n)
if not ids or not (nobody_has(K.rec, ids) and nobody_has(K.res, ids) and nobody_has(K.ent, ids)) then return nil end
if not has_room(places, tonumber(ARGV[2])) then return nil end
write_plain(ids, places, n)
wake_up()
return string.rep('A', n)
