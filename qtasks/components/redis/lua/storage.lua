-- Records of the storage. `rec` keeps open records as they were written, `run` the last token of each
-- that was started (PROCESS is known from it), `res` finished records. No JSON is read here:
--   rec  R seq | flags available [created] digest [unique_key] | base list, then lines `field TAB value`
--        flags: 1 somebody named a time, so `created` is there: without it a task is due, whatever its producer's clock
--        says; 2 it has a unique key; 4 its digest is text with its size
--   run  state epoch deliveries started updated owner        (state P: in process, N: put back)
--   res  F status dead expires | run | rec | a last line: the changes of the settle, one object
--   count  `back`: tokens put back; `e`, `c`: records that ended so. The other numbers follow from the sizes of the hashes,
--        so that what nearly every task goes through has nothing to count.
local RUN, RES = '>c1dI4ddHc0', '>c1c1BdH'
local rec = hash(K.rec)
local run = hash(K.run)
local res = hash(K.res)
local cancel = hash(K.cancel)
local wait = hash(K.wait)
local uniq = hash(K.uniq)
local done = zset(K.done)
local dead_set = zset(K.dead)
local added, announced = {}, {}

-- The parts of a record: its flags are at 8, when it is due at 9 to 16, its digest is raw from there on in most.
local FLAGS_AT = 8
local function readable(value) return byte(value) == 82 and #value >= 18 end -- 'R'

-- Where the two bytes at `at` say how long the text behind them is: where it ends.
local function text_end(value, at)
  local high, low = byte(value, at, at + 1)
  return low and at + 1 + 256 * high + low
end

-- What a record has from its flags (at `from`) on: when it is due, its digest, its unique key ('' is none), and
-- where the body begins; nil where it is damaged.
local function fields(value, from)
  local flags = byte(value, from)
  if not flags or flags > 7 or #value < from + 10 then return nil end
  local available, at, unique = unpack_struct('>d', value, from + 1), from + 9, ''
  if flags % 2 == 1 then at = at + 8 elseif available > now then available = now end
  local last = flags >= 4 and text_end(value, at) or at + 15
  local digest = sub(value, at, last)
  if flags % 4 >= 2 then
    at, last = last + 3, text_end(value, last + 1)
    unique = last and sub(value, at, last)
  end
  if not last or #value < last then return nil end
  return available, digest, unique, last + 1
end

-- The unique key of a readable record; nil where it is damaged.
local function unique_of(value)
  if byte(value, FLAGS_AT) == 0 then return #value >= 32 and '' or nil end
  local _, _, unique = fields(value, FLAGS_AT)
  return unique
end

local function head(value)
  if not readable(value) then return nil end
  local available, digest, unique, body = fields(value, FLAGS_AT)
  if not available then return nil end
  return { seq = unpack_struct('>I6', value, 2), available = available, digest = digest, unique = unique, body = body }
end

-- A record that does not say when it was created was due then.
local function with_available(value, available)
  local flags, created = byte(value, FLAGS_AT), ''
  if flags % 2 == 0 then flags, created = flags + 1, sub(value, 9, 16) end
  return sub(value, 1, 7) .. pack('>Bd', flags, available) .. created .. sub(value, 17)
end

local function run_of(id)
  local value = run:get(id)
  if not value then return nil end
  local ok, state, epoch, deliveries, started, updated, owner = pcall(unpack_struct, RUN, value)
  if not ok then return nil end
  return { state = state, epoch = epoch, deliveries = deliveries, started = started, updated = updated,
    owner = owner }
end

local function run_pack(r)
  return pack(RUN, r.state, r.epoch, r.deliveries, r.started, r.updated, #r.owner, r.owner)
end

-- The parts of a finished record: status, dead, expires, run, rec and the rest.
local function finished(value)
  local ok, magic, status, dead, expires, length, at = pcall(unpack_struct, RES, value)
  if not ok or magic ~= 'F' then return nil end
  return { status = status, dead = dead, expires = expires, run = string.sub(value, at, at + length - 1),
    rec = string.sub(value, at + length) }
end

-- The verdict on a new record, and the record that stands; with 'A' when it is due, and its unique key.
local function add(id, part)
  local old = rec:get(id)
  if not old then
    local f = res:get(id)
    if f then
      f = finished(f)
      old = f and f.rec or 'unreadable'
    end
  end
  local available, digest, unique = fields(part, 1)
  if old then
    local h = head(old)
    return (h and h.digest == digest) and 'S' or 'C', id
  end
  if unique ~= '' then
    local other = uniq:get(unique)
    if other and other ~= id and rec:get(other) then return 'E', other end
  end
  return 'A', id, available, unique
end

-- A record that is added with a token (it was in process elsewhere) brings it along.
local function store(id, part, unique, token)
  local number = seq()
  if token ~= '' then
    run:put(id, token)
    if byte(token) == 78 then count('back', 1) end -- 'N'
  end
  rec:put(id, pack('>c1I6', 'R', number) .. part)
  if unique ~= '' then uniq:put(unique, id) end
  added[#added + 1] = { number, id }
  return number
end

-- What every record that a script starts for an owner has in its token after its deliveries.
local starts = {}
local function started_by(owner)
  starts[owner] = pack('>ddHc0', now, now, #owner, owner)
  return starts[owner]
end

-- R4, R5. Gives the verdict and what goes with it.
local function start(id, epoch, owner, deliveries)
  local value, token = rec:get(id), run:get(id)
  if not value then return res:get(id) and 'T' or 'M' end
  if not readable(value) then return 'U' end
  local available, r = unpack_struct('>d', value, 9), nil
  if token then r = run_of(id) end
  local again = r and r.state == 'P' and r.epoch == epoch and r.owner == owner
  if not again then
    if r and r.epoch >= epoch then return 'C', r.epoch end
    if available > now and byte(value, FLAGS_AT) % 2 == 1 then return 'D', available - now end
    if r and r.state == 'N' then count('back', -1) end
    token = pack('>c1dI4', 'P', epoch, deliveries) .. (starts[owner] or started_by(owner))
    run:put(id, token)
  end
  return 'S', value, token, available
end

-- Lines `field TAB value` replace earlier ones of the same field.
local function with_lines(value, lines)
  if lines == '' then return value end
  local changed = {}
  for field in string.gmatch('\n' .. lines, '\n([^\t\n]+)\t') do changed[field] = true end
  local h = head(value)
  local body = string.sub(value, h.body)
  local parts = {}
  for line in string.gmatch(body, '[^\n]+') do
    local field = string.match(line, '^([^\t{]+)\t')
    if not field or not changed[field] then parts[#parts + 1] = line end
  end
  parts[#parts + 1] = lines
  return string.sub(value, 1, h.body - 1) .. table.concat(parts, '\n')
end

-- Times and counts of an update: -1 leaves the value as it is. Where a record has a token, they live with it.
local function patch(id, value, r, available, started, updated, deliveries, lines)
  if available ~= -1 then value = with_available(value, available) end
  value = with_lines(value, lines)
  if r then
    if started ~= -1 then r.started = started end
    if updated ~= -1 then r.updated = updated end
    if deliveries ~= -1 then r.deliveries = deliveries end
    run:put(id, run_pack(r))
  else
    local extra = {}
    if started ~= -1 then extra[#extra + 1] = 'started_at\t' .. (started < 0 and 'null' or text(started)) end
    if updated ~= -1 then extra[#extra + 1] = 'updated_at\t' .. text(updated) end
    if deliveries ~= -1 then extra[#extra + 1] = 'deliveries\t' .. text(deliveries) end
    value = with_lines(value, table.concat(extra, '\n'))
  end
  rec:put(id, value)
end

-- Terminal, for ever (R5). `token` is the run as it lies there, or ''.
local function finish(id, value, token, status, is_dead, expires, changes)
  local unique = readable(value) and unique_of(value)
  if not unique then
    -- An unreadable record ends readable, so that nothing trips over it again.
    value, unique = pack('>c1I6BdH', 'R', 0, 4, 0, 0) .. '{}', ''
  end
  local reason = cancel:get(id)
  if reason then
    value = with_lines(value, 'cancel_requested\ttrue\ncancel_reason\t' .. reason)
    cancel:put(id, false)
  end
  if unique ~= '' and uniq:get(unique) == id then uniq:put(unique, false) end
  local result = pack(RES, 'F', status, is_dead, expires, #token) .. token .. value .. '\n' .. changes
  if byte(token) == 78 then count('back', -1) end -- 'N'
  if status ~= 's' then count(status, 1) end
  rec:put(id, false)
  run:put(id, false)
  res:put(id, result)
  done:put(id, expires)
  if is_dead == 1 then dead_set:put(id, seq()) end
  local channels = wait:get(id)
  if channels then
    announced[#announced + 1] = { channels, id .. result }
    wait:put(id, false)
  end
end

-- Whether this token settled the record before (its reply was lost).
local function settled_by(id, r, epoch, owner)
  if r and r.epoch == epoch and r.owner == owner then return true end
  local f = res:get(id)
  f = f and finished(f)
  if not f or f.run == '' then return false end
  local ok, _, old_epoch, _, _, _, old_owner = pcall(unpack_struct, RUN, f.run)
  return ok and old_epoch == epoch and old_owner == owner
end

-- Whether exactly this token has the record in process.
local function runs(token, epoch, owner)
  return token and #token >= 31 and byte(token) == 80 and unpack_struct('>d', token, 2) == epoch
    and sub(token, 32) == owner
end

-- What settle.lua and settle_ack.lua are given: two values per settle, and two for each record of its `then`.
-- The first has a head; where the task goes back to NEW, its numbers; where its entry goes back, how; the owner, with
-- its size.
local SETTLE, NUMBERS, NACK = '>c16dc1BdHB', '>dddd', '>dI4d'
local MORE_AT = 35
local function settled_ids(first)
  local ids, n, i = {}, 0, first
  while i <= #ARGV do
    n = n + 1
    ids[n] = sub(ARGV[i], 1, 16)
    local high, low = byte(ARGV[i], MORE_AT, MORE_AT + 1)
    i = i + 2 + 512 * high + 2 * low
  end
  rec:load(ids)
  run:load(ids)
  cancel:load_few(ids)
  wait:load_few(ids)
  return ids
end

-- outcome: s e c are terminal; r (retry) and l (release) go back to NEW and keep the token.
-- Gives the verdict, the token, how many records follow, and how the entry goes back, if it does.
local function settle(i)
  go_on_when_full()
  local id, epoch, outcome, is_dead, expires, more, nacked, at = unpack_struct(SETTLE, ARGV[i])
  local back, available, started, updated, deliveries, nack = outcome == 'r' or outcome == 'l'
  if back then available, started, updated, deliveries, at = unpack_struct(NUMBERS, ARGV[i], at) end
  if nacked == 1 then
    nack = { unpack_struct(NACK, ARGV[i], at) }
    at = nack[4]
  end
  local owner = sub(ARGV[i], at + 2)
  local value, token = rec:get(id), run:get(id)
  local verdict = 'A'
  if not (value and runs(token, epoch, owner)) then
    verdict = settled_by(id, run_of(id), epoch, owner) and 'M' or 'R'
  elseif not back then
    finish(id, value, token, outcome, is_dead, expires, ARGV[i + 1])
  elseif not head(value) then
    verdict = 'R'
  else
    local r = run_of(id)
    r.state = 'N'
    count('back', 1)
    if nack and available == -1 then available = now + nack[1] end
    patch(id, value, r, available, started, updated, deliveries, ARGV[i + 1])
  end
  return verdict, epoch, owner, more, nack
end

-- The order of creation, then what is told to waiting clients: after everything is written.
local function publish()
  for i = 1, #added do call('XADD', K.ord, string.format('%d-0', added[i][1]), 'u', added[i][2]) end
  announce(announced)
end

local function drop_items(id)
  local n = tonumber(call('HGET', K.itemn, id) or '0')
  for first = 0, n - 1, MOST do
    local fields = {}
    for i = first, math.min(first + MOST, n) - 1 do fields[#fields + 1] = id .. i end
    call('HDEL', K.items, unpack(fields))
  end
  if n > 0 then call('HDEL', K.itemn, id) end
end

-- Deletes a finished record and all that belongs to it.
local function erase(id)
  local value = res:get(id)
  if not value then
    done:put(id, false)
    dead_set:put(id, false)
    return false
  end
  local f = finished(value)
  local h = f and head(f.rec)
  if h and h.seq > 0 then call('XDEL', K.ord, text(h.seq) .. '-0') end
  if f and f.status ~= 's' then count(f.status, -1) end
  res:put(id, false)
  done:put(id, false)
  dead_set:put(id, false)
  drop_items(id)
  return true
end

-- What a reader gets of one record: its kind and three values.
local function shown(id, reply)
  local value, kind = rec:get(id), 'R'
  if not value then
    value, kind = res:get(id), 'F'
    if not value then kind = '' end
  end
  reply[#reply + 1] = id
  reply[#reply + 1] = kind
  reply[#reply + 1] = value or ''
  reply[#reply + 1] = kind == 'R' and (run:get(id) or '') or ''
  reply[#reply + 1] = kind == 'R' and (cancel:get(id) or '') or ''
end
