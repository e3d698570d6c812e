-- Hashes and sorted sets as a batch sees them: read at once, changed in memory, written at once by commit().
local call, pack, unpack_struct = redis.call, struct.pack, struct.unpack
local MOST = 1000 -- arguments that one unpack may take
local PRIORITY_STEP = 35184372088832 -- 2^45: (priority + 128) * step + sequence is exact in a double

local time = call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1e6

local open_hashes, open_zsets, counts = {}, {}, {}

local Hash = {}
Hash.__index = Hash

local function hash(key)
  local self = setmetatable({ key = key, val = {}, order = {} }, Hash)
  open_hashes[#open_hashes + 1] = self
  return self
end

function Hash:load(ids)
  for first = 1, #ids, MOST do
    local last = math.min(first + MOST - 1, #ids)
    local found = call('HMGET', self.key, unpack(ids, first, last))
    for i = first, last do
      if self.val[ids[i]] == nil then self.val[ids[i]] = found[i - first + 1] end
    end
  end
end

-- For a hash that is nearly always empty.
function Hash:load_few(ids)
  self.empty = call('HLEN', self.key) == 0
  if not self.empty then self:load(ids) end
end

function Hash:get(id)
  local value = self.val[id]
  if value == nil and self.empty then return false end
  if value == nil then
    value = call('HGET', self.key, id)
    self.val[id] = value
  end
  return value
end

-- A value of false deletes the field.
function Hash:put(id, value)
  self.val[id] = value
  self.order[#self.order + 1] = id
end

local Zset = {}
Zset.__index = Zset

local function zset(key)
  local self = setmetatable({ key = key, val = {}, order = {} }, Zset)
  open_zsets[#open_zsets + 1] = self
  return self
end

-- A score of false removes the member.
function Zset:put(id, score)
  if self.val[id] == nil then self.order[#self.order + 1] = id end
  self.val[id] = score
end

local function bulk(command, key, list)
  for first = 1, #list, MOST do
    call(command, key, unpack(list, first, math.min(first + MOST - 1, #list)))
  end
end

local function split_changes(store, order, by_score)
  local set, drop, n, m = {}, {}, 0, 0
  for i = 1, #order do
    local id = order[i]
    local value = store[id]
    if value == false then
      m = m + 1
      drop[m] = id
    else
      if by_score then set[n + 1], set[n + 2] = value, id else set[n + 1], set[n + 2] = id, value end
      n = n + 2
    end
  end
  return set, drop
end

-- What frees memory comes first: a script that has written once is not stopped by `maxmemory` any more,
-- so tasks can still be claimed and settled on a full server.
local written = false
local function commit()
  local later = {}
  for i = 1, #open_hashes do
    local h = open_hashes[i]
    if #h.order > 0 then
      local set, drop = split_changes(h.val, h.order)
      bulk('HDEL', h.key, drop)
      written = true
      if #set > 0 then later[#later + 1] = { 'HSET', h.key, set } end
    end
  end
  for i = 1, #open_zsets do
    local z = open_zsets[i]
    if #z.order > 0 then
      local set, drop = split_changes(z.val, z.order, true)
      bulk('ZREM', z.key, drop)
      written = true
      if #set > 0 then later[#later + 1] = { 'ZADD', z.key, set } end
    end
  end
  for i = 1, #later do bulk(later[i][1], later[i][2], later[i][3]) end
  for name, delta in pairs(counts) do
    if delta ~= 0 then call('HINCRBY', K.count, name, delta) end
  end
end

-- WAIT and WAITAOF speak for what their connection wrote. An answer "already there" of a script that wrote nothing would
-- be taken for durable at once, though what it speaks of may be on this server alone: so it writes the least there is.
-- (The HDEL changes nothing; after it a full server takes the other one, see commit.)
local function confirm()
  if written then return end
  call('HDEL', K.rec or K.ent, '')
  call('INCRBY', K.seq, 0)
end

local function count(name, delta) counts[name] = (counts[name] or 0) + delta end

-- Sequence numbers are drawn in one step for a batch.
local seq_next, seq_last = 0, -1
local function draw_seq(n)
  seq_last = call('INCRBY', K.seq, n)
  seq_next = seq_last - n + 1
end
local function seq()
  if seq_next > seq_last then draw_seq(1) end
  seq_next = seq_next + 1
  return seq_next - 1
end

local function text(number) return string.format('%.17g', number) end
