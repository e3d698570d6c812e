--@include base clock
-- Hashes and sorted sets as a batch sees them: read at once, changed in memory, written at once by commit().
local opened, counts = {}, {}

-- A batch of changes to one key: `set` as the command that writes takes it, `drop` what is removed.
local function open(class, key)
  local self = setmetatable({ key = key, val = {}, n = 0, m = 0 }, class)
  opened[#opened + 1] = self
  return self
end

local function remove(self, id)
  local m = self.m + 1
  if m == 1 then self.drop = {} end
  self.m, self.drop[m] = m, id
end

local function write(self, first, second)
  local n = self.n
  if n == 0 then self.set = {} end
  local set = self.set
  set[n + 1], set[n + 2], self.n = first, second, n + 2
end

local Hash = { add = 'HSET', remove = 'HDEL', id_at = 0 }
Hash.__index = Hash

local function hash(key) return open(Hash, key) end

function Hash:load(ids)
  local val = self.val
  for first = 1, #ids, MOST do
    local last = math.min(first + MOST - 1, #ids)
    local found = call('HMGET', self.key, unpack(ids, first, last))
    for i = first, last do
      local id = ids[i]
      if val[id] == nil then val[id] = found[i - first + 1] end
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
  if value == nil then
    if self.empty then return false end
    value = call('HGET', self.key, id)
    self.val[id] = value
  end
  return value
end

-- A value of false deletes the field.
function Hash:put(id, value)
  self.val[id] = value
  if value then write(self, id, value) else remove(self, id) end
end

-- Writes a list of fields and values, or scores and members, of which `val` is up to date.
local function append(self, list)
  if self.n == 0 then
    self.set, self.n = list, #list
  else
    for i = 1, #list, 2 do write(self, list[i], list[i + 1]) end
  end
end

-- Removes a list of fields or members, of which `val` is up to date. The list is not copied.
local function remove_all(self, list)
  if self.m == 0 then
    self.drop, self.m = list, #list
  else
    for i = 1, #list do remove(self, list[i]) end
  end
end

local Zset = { add = 'ZADD', remove = 'ZREM', id_at = 1 }
Zset.__index = Zset

local function zset(key) return open(Zset, key) end

-- A score of false removes the member.
function Zset:put(id, score)
  self.val[id] = score
  if score then write(self, score, id) else remove(self, id) end
end

local function bulk(command, key, list)
  for first = 1, #list, MOST do
    local last = math.min(first + MOST - 1, #list)
    if command == 'HSET' then
      hset(key, list, first, last)
    else
      call(command, key, unpack(list, first, last))
    end
  end
end

-- Where a batch both writes and removes, it may do so to the same id: the last word counts.
local function last_words(self)
  local set, drop = {}, {}
  for i = 1, self.n, 2 do
    if self.val[self.set[i + self.id_at]] then
      set[#set + 1], set[#set + 2] = self.set[i], self.set[i + 1]
    end
  end
  for i = 1, self.m do
    if not self.val[self.drop[i]] then drop[#drop + 1] = self.drop[i] end
  end
  self.set, self.drop, self.n = set, drop, #set
end

-- A full server stops a script at its first command that could take memory, but not after one that wrote and takes
-- none. What holds, moves or ends tasks begins with such a one, which changes nothing: with it a full server empties
-- itself. (Claims begin with ZPOPMIN.)
local unstoppable = false
local function go_on_when_full()
  if unstoppable then return end
  unstoppable = true
  call('HDEL', K.rec or K.ent, '')
end

-- What frees memory comes first, for the same reason.
local written = false
local function commit()
  for i = 1, #opened do
    local s = opened[i]
    if s.n > 0 and s.m > 0 then last_words(s) end
    if s.m > 0 then bulk(s.remove, s.key, s.drop) end
    written = written or s.n + s.m > 0
  end
  for i = 1, #opened do
    local s = opened[i]
    if s.n > 0 then bulk(s.add, s.key, s.set) end
  end
  for name, delta in pairs(counts) do
    if delta ~= 0 then call('HINCRBY', K.count, name, delta) end
  end
end

-- WAIT and WAITAOF speak for what their connection wrote. An answer "already there" of a script that wrote nothing would
-- be taken for durable at once, though what it speaks of may be on this server alone: so it writes the least there is.
local function confirm()
  if written then return end
  go_on_when_full()
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
