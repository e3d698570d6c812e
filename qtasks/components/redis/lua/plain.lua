-- New tasks as most are: due at once, without unique key and token, of uuids that nobody has, and with room in their queues.
-- They are written as add_push.lua would write them, without the tables by which it looks at everything else: to a single
-- task those cost more than all that it needs. A batch that has anything else in it is left to add_push, untouched.

-- The uuids of a batch, and what each of its queues gets: scores, counted from the first of the batch, and uuids.
-- Nothing where it is not plain: a plain head is 20 bytes; a plain record has no flag but that its digest is text.
local function plain_batch(n)
  local ids, seen, places = {}, {}, {}
  for i = 1, n do
    local header, part = ARGV[2 * i + 1], ARGV[2 * i + 2]
    if #header ~= 20 or byte(part) % 4 ~= 0 then return nil end
    local id, index, priority = unpack_struct('>c16Hh', header)
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

local function add_plain()
  local n = (#ARGV - 2) / 2
  if 2 * n + 3 > MOST then return nil end
  local ids, places = plain_batch(n)
  if not ids or not (nobody_has(K.rec, ids) and nobody_has(K.res, ids) and nobody_has(K.ent, ids)) then return nil end
  if not has_room(places, tonumber(ARGV[2])) then return nil end
  write_plain(ids, places, n)
  wake_up()
  return string.rep('A', n)
end
do
  local added = add_plain()
  if added then return added end
end
