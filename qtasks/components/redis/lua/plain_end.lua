-- Ends of tasks as nearly all are: exactly this token has the record and the entry, and nothing follows from it but that
-- whoever waits is told. They are written as settle_ack.lua would write them, without the tables and functions by which it
-- looks at everything else: to a single task those cost more than all that it needs. What is ended has 'A' in `verdicts`.
local verdicts = {}
do
  -- The settles that may be such ends: their uuids, and where in ARGV each is. Behind their numbers all have the same: no
  -- record follows, the entry does not go back, an owner. In a batch where one may depend on another (a task comes twice, or
  -- records follow) there are none.
  local at, ids, n, tail = {}, {}, 0, nil
  for i = 2, #ARGV, 2 do
    local arg = ARGV[i]
    local id, rest, outcome, is_dead = sub(arg, 1, 16), sub(arg, 35), byte(arg, 25, 26)
    if at[id] or sub(rest, 1, 2) ~= '\0\0' or i > MOST then
      n = 0
      break
    end
    at[id] = i
    local ends = (outcome == 115 or outcome == 101 or outcome == 99) and is_dead == 0 -- 's', 'e', 'c'
    if ends and (rest == tail or not tail and byte(rest, 3) == 0) then
      n, tail = n + 1, rest
      ids[n] = id
    end
  end

  if n > 0 then
    local recs, runs = call('HMGET', K.rec, unpack(ids)), call('HMGET', K.run, unpack(ids))
    local ents, told, asked = call('HMGET', K.ent, unpack(ids)), {}, {}
    -- These two are nearly always empty, or have one.
    if call('HLEN', K.wait) > 0 then told = call('HMGET', K.wait, unpack(ids)) end
    if call('HLEN', K.cancel) > 0 then asked = call('HMGET', K.cancel, unpack(ids)) end
    local owner, lease_of, key = sub(tail, 4), {}, FIXED + 3
    for name in string.gmatch(ARGV[1], '%S+') do -- by what an entry has from its owner on
      lease_of[owner .. name], key = KEYS[key], key + 3
    end

    -- Both tokens have epoch and owner as the settle has them, so they are compared as they stand; a record with flags of 2
    -- and more has to be looked into.
    local gone, leases, results, dues, waited, messages = {}, {}, {}, {}, {}, {}
    local size, k, errors, cancels = pack('>H', 29 + #owner), 0, 0, 0
    for j = 1, n do
      local id, value, token, e = ids[j], recs[j], runs[j], ents[j]
      local arg, flags = ARGV[at[id]], value and byte(value) == 82 and byte(value, 8) -- 'R'
      local epoch, lease = sub(arg, 17, 24), nil
      if flags and flags < 2 and #value >= 32 + 8 * flags and not asked[j]
        and token and byte(token) == 80 and sub(token, 2, 9) == epoch and sub(token, 30) == owner -- 'P'
        and e and byte(e) == 76 and sub(e, 15, 22) == epoch then -- 'L'
        lease = lease_of[sub(e, 31)]
      end
      if lease then
        local outcome, of_lease = byte(arg, 25), leases[lease]
        local result = 'F' .. sub(arg, 25, 34) .. size .. token .. value .. '\n' .. ARGV[at[id] + 1]
        if of_lease then of_lease[#of_lease + 1] = id else leases[lease] = { id } end
        k = k + 1
        gone[k], results[2 * k - 1], results[2 * k] = id, id, result
        dues[2 * k - 1], dues[2 * k] = unpack_struct('>d', arg, 27), id
        if outcome == 101 then errors = errors + 1 elseif outcome == 99 then cancels = cancels + 1 end
        if told[j] then waited[#waited + 1], messages[#messages + 1] = id, { told[j], id .. result } end
      end
    end

    -- What frees memory comes first, so that a full server goes on. A finished record is too long for a list (see hset).
    if k > 0 then
      call('HDEL', K.rec, unpack(gone))
      call('HDEL', K.run, unpack(gone))
      call('HDEL', K.ent, unpack(gone))
      if waited[1] then call('HDEL', K.wait, unpack(waited)) end
      for lease, of_lease in pairs(leases) do call('ZREM', lease, unpack(of_lease)) end
      call('HSET', K.res, unpack(results))
      call('ZADD', K.done, unpack(dues))
      if errors > 0 then call('HINCRBY', K.count, 'e', errors) end
      if cancels > 0 then call('HINCRBY', K.count, 'c', cancels) end
      if waited[1] then announce(messages) end
    end
    if 2 * k == #ARGV - 1 then return string.rep('A', k) end
    for j = 1, k do verdicts[at[gone[j]] / 2] = 'A' end
  end
end
