-- Steps that broker and storage take together.

-- Whether the broker has the entry, as far as an added record can be in it.
local function known(id, q)
  return entry(id) or q.ready.val[id] or q.delayed.val[id] or call('ZSCORE', q.ready_key, id)
end

local registered = {}
local function enqueue(id, q, priority, available, number)
  local score = (priority + 128) * PRIORITY_STEP + number
  if available > now then
    save(id, { state = 'W', restored = 0, deliveries = 0, score = score, epoch = 0, available = available,
      owner = '', queue = q.name })
  end
  place(id, q, score, available)
  if not registered[q.name] then
    registered[q.name] = true
    call('SADD', K.queues, q.name)
  end
end

-- The queue that a record names: its JSON begins with the names of its task and its queue.
local function queue_in(value, h)
  return by_name[string.match(value, '^%["[^"]*","([^"]*)"', h.body)]
end

-- A new record and its entry. `full` is asked only for what would be added.
local function add_and_enqueue(header, part, full)
  local id, index, priority, at = unpack_struct('>c16Hh', header)
  local q = queues[index + 1]
  local kind, other, available, unique = add(id, part)
  if kind == 'A' then
    if full and full(q) then return 'F' end
    local token = string.sub(header, at)
    local number = store(id, part, unique, token)
    if not entry(id) then enqueue(id, q, priority, available, number) end
    if token ~= '' then above(unpack_struct('>d', token, 2)) end
  elseif kind == 'S' and rec:get(id) then
    -- It stands in its own queue, whichever this caller names. Where that is not at hand, the reconciler looks after it.
    local r, h = run_of(id), head(rec:get(id))
    local own = h and queue_in(rec:get(id), h)
    if own and not known(id, own) then
      enqueue(id, own, priority, h.available, seq())
      if r then above(r.epoch) end
    end
  end
  return kind, other
end
