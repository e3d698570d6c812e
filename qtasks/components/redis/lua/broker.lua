-- Entries of the broker: what a token is, and every way an entry moves between ready, delayed, leased and buried.
-- An entry that was never claimed may stand in `ready` alone; from the first claim on it has a token in `ent`.
local ENTRY, ENTRY_HEAD = '>c1BI4dddHc0', '>c1BI4ddd'
local ent = hash(K.ent)
local queues, by_name = {}, {}

local function queue_of(name, first_key)
  local q = { name = name, ready_key = KEYS[first_key], delayed_key = KEYS[first_key + 1],
    lease_key = KEYS[first_key + 2] }
  q.ready, q.delayed, q.lease = zset(q.ready_key), zset(q.delayed_key), zset(q.lease_key)
  queues[#queues + 1], by_name[name] = q, q
end
do
  local key = FIXED + 1
  for name in string.gmatch(ARGV[1], '%S+') do
    queue_of(name, key)
    key = key + 3
  end
end

local function entry(id)
  local value = ent:get(id)
  if not value then return nil end
  local ok, state, restored, deliveries, score, epoch, available, owner, rest = pcall(unpack_struct, ENTRY, value)
  if not ok then return nil end
  return { state = state, restored = restored, deliveries = deliveries, score = score, epoch = epoch,
    available = available, owner = owner, queue = string.sub(value, rest) }
end

local function save(id, e)
  ent:put(id, pack(ENTRY, e.state, e.restored, e.deliveries, e.score, e.epoch, e.available, #e.owner, e.owner)
    .. e.queue)
end

-- The same, where only the token of R3 matters: the queue in which exactly this claim holds the entry.
local function held_in(id, epoch, owner)
  local value = ent:get(id)
  if not value or #value < 32 or byte(value) ~= 76 then return nil end -- 'L'
  if unpack_struct('>d', value, 15) ~= epoch then return nil end
  local high, low = byte(value, 31, 32)
  local rest = 33 + 256 * high + low
  return sub(value, 33, rest - 1) == owner and by_name[sub(value, rest)] or nil
end

-- The token of R3: `e` is leased to exactly this claim.
local function holds(e, epoch, owner)
  return e ~= nil and e.state == 'L' and e.epoch == epoch and e.owner == owner and by_name[e.queue] ~= nil
end

local floor_epoch = 0
local function above(epoch) if epoch > floor_epoch then floor_epoch = epoch end end
local function raise_epoch()
  if floor_epoch > 0 and floor_epoch > tonumber(call('GET', K.epoch) or '0') then
    call('SET', K.epoch, text(floor_epoch))
  end
end

local function place(id, q, score, due)
  if due > now then q.delayed:put(id, due) else q.ready:put(id, score) end
  arrived(q.name)
end

local function score_of(priority) return (priority + 128) * PRIORITY_STEP + seq() end

-- Back to waiting, with its original place in the order. `available` stays: how long an entry has been
-- looking for its record is measured from it.
local function put_back(id, e, delay, deliveries, min_epoch)
  local q = by_name[e.queue]
  e.state, e.owner, e.deliveries = 'W', '', deliveries
  save(id, e)
  q.lease:put(id, false)
  place(id, q, e.score, now + delay)
  above(min_epoch)
end

local function forget(id, q)
  q.lease:put(id, false)
  ent:put(id, false)
end

local function bury_entry(id, e, reason)
  by_name[e.queue].lease:put(id, false)
  e.state, e.owner = 'B', ''
  save(id, e)
  go_on_when_full()
  call('HSET', K.buried, id, pack('>d', e.epoch) .. reason)
end

-- Delayed entries whose time has come stand in `ready` again, by their original score.
local function promote(q)
  local due = call('ZRANGEBYSCORE', q.delayed_key, '-inf', text(now), 'LIMIT', 0, 400)
  if #due == 0 then return end
  ent:load(due)
  local add = {}
  for i = 1, #due do
    local e = entry(due[i])
    add[2 * i - 1] = e and text(e.score) or text(score_of(0))
    add[2 * i] = due[i]
  end
  bulk('ZREM', q.delayed_key, due)
  bulk('ZADD', q.ready_key, add)
end

-- Takes up to n due entries of one queue out of `ready`: their uuids, what ZPOPMIN gave, the epoch before the first of
-- theirs.
local function pop(q, n)
  promote(q)
  local popped, ids = call('ZPOPMIN', q.ready_key, n), {}
  for i = 1, #popped, 2 do ids[(i + 1) / 2] = popped[i] end
  if #ids == 0 then return ids end
  ent:load(ids)
  return ids, popped, call('INCRBY', K.epoch, #ids) - #ids
end

-- The entry of one of them, claimed; nil where an index named one that is leased or buried by now, or that stands in
-- another queue.
local function take(q, id, score, epoch, owner)
  local e = ent.val[id] and entry(id)
  if not e then
    -- It is claimed for the first time; its record knows since when it is due.
    e = { state = 'L', restored = 0, deliveries = 1, score = tonumber(score), epoch = epoch, available = -1,
      owner = owner, queue = q.name }
  elseif e.state == 'W' and e.queue == q.name then
    e.state, e.owner, e.epoch, e.score = 'L', owner, epoch, tonumber(score)
    e.deliveries = e.deliveries + 1
  else
    return nil
  end
  return e
end

-- Saves a claimed entry; gives what its claimer is told behind its uuid: the entry, as it stands but that an entry was
-- restored, which is said once. `tail` is the owner as an entry has it.
local function claimed(id, e, tail)
  local told = pack(ENTRY_HEAD, 'L', e.restored, e.deliveries, e.score, e.epoch, e.available) .. tail .. e.queue
  local saved = told
  if e.restored ~= 0 then
    saved = pack(ENTRY_HEAD, 'L', 0, e.deliveries, e.score, e.epoch, e.available) .. tail .. e.queue
  end
  ent:put(id, saved)
  return told
end

-- Scripts that must see every queue are refused when the caller does not know all of them.
local function unknown_queues()
  if call('SCARD', K.queues) == #queues then
    local all = true
    for i = 1, #queues do all = all and call('SISMEMBER', K.queues, queues[i].name) == 1 end
    if all then return nil end
  end
  return { 'STALE', call('SMEMBERS', K.queues) }
end
