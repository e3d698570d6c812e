-- Ends of tasks as nearly all are: exactly this token has the record and the entry, and nothing follows from it but that
-- whoever waits is told. They are written as settle_ack.lua would write them, without the tables by which it looks at
-- everything else: to a single task those cost more than all that it needs.
local NOTHING_MORE = '\0\0\0' -- no record follows, and the entry does not go back

-- The settles that may be such ends: where each is in ARGV, its uuid, and what all of them have behind their numbers:
-- nothing more, and the same owner. None of a batch in which one may depend on another: a task comes twice, or records
-- follow.
local function likely_ends()
  local at, ids, seen, n, tail = {}, {}, {}, 0, nil
  if #ARGV > MOST then return at, ids end
  for i = 2, #ARGV, 2 do
    local arg = ARGV[i]
    local id, rest, outcome, is_dead = sub(arg, 1, 16), sub(arg, 35), byte(arg, 25, 26)
    if seen[id] or sub(rest, 1, 2) ~= '\0\0' then return {}, {} end
    seen[id] = true
    local ends = (outcome == 115 or outcome == 101 or outcome == 99) and is_dead == 0 -- 's', 'e', 'c'
    if ends and (rest == tail or not tail and sub(rest, 1, 3) == NOTHING_MORE) then
      n, tail = n + 1, rest
      at[n], ids[n] = i, id
    end
  end
  return at, ids, tail
end

-- Of a hash that is nearly always empty.
local function few(key, ids)
  if #ids > 1 and call('HLEN', key) == 0 then return {} end
  return call('HMGET', key, unpack(ids))
end

-- The keys of leases, by what an entry has from its owner on.
local function leases_of(owner)
  local keys, key = {}, FIXED + 3
  for name in string.gmatch(ARGV[1], '%S+') do
    keys[owner .. name], key = KEYS[key], key + 3
  end
  return keys
end

-- What ends: its uuids, by the keys of their leases, too; finished records; when they expire; what is told to whom.
local gone, leases, results, dues, waited, messages = {}, {}, {}, {}, {}, {}
local ended, errors, cancels = 0, 0, 0

-- What frees memory comes first, so that a full server goes on. A finished record is too long for a list.
local function write_ends()
  call('HDEL', K.rec, unpack(gone))
  call('HDEL', K.run, unpack(gone))
  call('HDEL', K.ent, unpack(gone))
  if #waited > 0 then call('HDEL', K.wait, unpack(waited)) end
  for key, ids in pairs(leases) do call('ZREM', key, unpack(ids)) end
  call('HSET', K.res, unpack(results))
  call('ZADD', K.done, unpack(dues))
  if errors > 0 then call('HINCRBY', K.count, 'e', errors) end
  if cancels > 0 then call('HINCRBY', K.count, 'c', cancels) end
  announce(messages)
end

-- Ends what ends as nearly all do; gives 'A' at the place of each of these settles. Both tokens have epoch and owner as the
-- settle has them, so they are compared as they stand; a record with flags of 2 and more has to be looked into.
local function end_plainly()
  local verdicts, at, ids, tail = {}, likely_ends()
  if #ids == 0 then return verdicts end
  local recs, runs = call('HMGET', K.rec, unpack(ids)), call('HMGET', K.run, unpack(ids))
  local ents, told, asked = call('HMGET', K.ent, unpack(ids)), few(K.wait, ids), few(K.cancel, ids)
  local owner, k = sub(tail, 4), 0
  local keys, size = leases_of(owner), pack('>H', 29 + #owner)
  for j = 1, #ids do
    local id, arg, value, token, e = ids[j], ARGV[at[j]], recs[j], runs[j], ents[j]
    local flags = value and byte(value) == 82 and byte(value, 8) -- 'R'
    local epoch, lease = sub(arg, 17, 24), nil
    if flags and flags < 2 and #value >= 32 + 8 * flags and not asked[j]
      and token and byte(token) == 80 and sub(token, 2, 9) == epoch and sub(token, 30) == owner -- 'P'
      and e and byte(e) == 76 and sub(e, 15, 22) == epoch then -- 'L'
      lease = keys[sub(e, 31)]
    end
    if lease then
      local outcome, of_lease = byte(arg, 25), leases[lease]
      local result = 'F' .. sub(arg, 25, 34) .. size .. token .. value .. '\n' .. ARGV[at[j] + 1]
      if not of_lease then
        of_lease = {}
        leases[lease] = of_lease
      end
      k = k + 1
      gone[k], of_lease[#of_lease + 1], results[2 * k - 1], results[2 * k] = id, id, id, result
      dues[2 * k - 1], dues[2 * k] = unpack_struct('>d', arg, 27), id
      if outcome == 101 then errors = errors + 1 elseif outcome == 99 then cancels = cancels + 1 end
      if told[j] then
        waited[#waited + 1] = id
        messages[#waited] = { told[j], id .. result }
      end
      verdicts[at[j] / 2] = 'A'
    end
  end
  if k > 0 then write_ends() end
  ended = k
  return verdicts
end

local verdicts = end_plainly()
do
  if ended == (#ARGV - 1) / 2 then return table.concat(verdicts) end
end
