-- Claims as nearly all are: of tasks that nobody claimed before, whose record is there and due. They are written at once, as
-- claim_start.lua would write them, without the tables and functions by which it looks at everything else: to a single task
-- those cost more than all that it needs. Of a batch with anything else, that is left.
local left, owner, ends = tonumber(ARGV[2]), ARGV[3], text(now + tonumber(ARGV[4]))
local told, looked, m, other = {}, 0, 0, nil
local reply, tail = { '0', text(now), told }, pack('>Hc0', #owner, owner)
local started = pack('>I4ddHc0', 1, now, now, #owner, owner)
local AT_ONCE = 400 -- entries that are taken out of a queue in one step

-- Takes up to n entries out of `ready` of a queue, and claims and starts those that can be claimed this way. If these are all,
-- they are in the reply, too; else the whole batch is in `other`, for who looks at the rest. Gives how many there were.
local function claim_plain(index, name, n)
  local key = FIXED + 3 * index
  local popped, ids = call('ZPOPMIN', KEYS[key - 2], n), {}
  local size = #popped / 2
  if size == 0 then return 0 end
  for i = 1, size do ids[i] = popped[2 * i - 1] end
  local ents, runs, recs = call('HMGET', K.ent, unpack(ids)), call('HMGET', K.run, unpack(ids)), call('HMGET', K.rec, unpack(ids))
  local before, queued, at, odd = call('INCRBY', K.epoch, size) - size, tail .. name, m, {}
  local of_ent, of_run, of_lease, k = {}, {}, {}, 0
  for i = 1, size do
    local id, value, available = ids[i], recs[i], nil
    -- No entry and no token: nobody claimed it. So there is no token to compare, no count to go on with, and no request
    -- to cancel it: that ends what has no token.
    if value and not ents[i] and not runs[i] and byte(value) == 82 and #value >= 18 then -- 'R', see readable
      available = unpack_struct('>d', value, 9)
    end
    if available and available <= now then
      local epoch = before + i
      of_ent[k + 1], of_ent[k + 2] = id, pack('>c1BI4dddc0', 'L', 0, 1, popped[2 * i], epoch, available, queued)
      of_run[k + 1], of_run[k + 2] = id, pack('>c1dc0', 'P', epoch, started)
      of_lease[k + 1], of_lease[k + 2], k = ends, id, k + 2
      at = at + 1
      reply[at + 3] = value
    else
      odd[i] = true
    end
  end
  looked = looked + size
  if k > 0 then
    hset(K.ent, of_ent, 1, k)
    hset(K.run, of_run, 1, k)
    call('ZADD', KEYS[key], unpack(of_lease))
  end
  if k == 2 * size then
    told[index], m = (told[index] or '') .. table.concat(of_ent), at
  else
    other = { ids = ids, popped = popped, before = before, odd = odd, ents = ents, runs = runs, recs = recs, of_ent = of_ent }
  end
  return size
end

-- A worker that got all there was is told of more, without asking once more first. One that was shown what cannot run
-- looks again at once instead: it may have been put back. New tasks are handed over where it has nothing else to do, or
-- one task, and then when that is settled; whoever goes on claiming withdraws the word that may be left of an earlier rest.
-- Longer than RENEWED its word does not stand, as a worker at rest claims every second, and never longer than a lease: so
-- one that is stuck is handed one task, and not the next one when that was taken from it. The form of a word: rest.lua.
local RENEWED = 5
local function rest()
  for i = 1, (#KEYS - FIXED) / 3 do told[i] = told[i] or '' end
  if m < left and looked == m then
    local terms = ''
    if ARGV[7] == '1' and m < 2 then
      local last = sub(table.concat(told), 1, 16)
      -- What was handed over while this claim was under way is not known to the worker that sent it.
      if m == 0 then last = unsettled_of(call('HGET', K.wake, ARGV[5]) or '') or '' end
      local lease = tonumber(ARGV[4])
      terms = '\n' .. pack('>ddBc0', now + math.min(RENEWED, lease), lease, #last, last) .. owner
    end
    reply[1] = rest_until_due(ARGV[5], ARGV[1], terms)
  end
  if reply[1] == '0' and ARGV[5] ~= '' then call('HDEL', K.wake, ARGV[5]) end
end

-- Queue by queue, until there is something else to do: from there on claim_start.lua goes on.
local first = 1
do
  local general = left > AT_ONCE
  for name in string.gmatch(ARGV[1], '%S+') do
    local due = call('ZRANGE', KEYS[FIXED + 3 * first - 1], 0, 0, 'WITHSCORES')[2]
    general = general or due and tonumber(due) <= now
    if general then break end
    claim_plain(first, name, left - looked)
    general = other ~= nil
    if general or m == left then break end
    first = first + 1
  end
  if not general then
    rest()
    return reply
  end
end
