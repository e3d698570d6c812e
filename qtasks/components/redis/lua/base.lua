-- What every script may need: the commands, idle workers and waiting clients to be told.
local call, pack, unpack_struct = redis.call, struct.pack, struct.unpack
local byte, sub = string.byte, string.sub
local MOST = 1000 -- arguments that one unpack may take
local PRIORITY_STEP = 35184372088832 -- 2^45: (priority + 128) * step + sequence is exact in a double

-- The server keeps a hash of few and short values as one list, and looks through all of it for each field. One long
-- value makes a table of it for as long as it is not empty; so it is written, and replaced at once, as a hash outgrows
-- MANY fields.
local MANY = 16
local function hset(key, list, first, last)
  local size = call('HLEN', key)
  if size <= MANY and size + (last - first + 1) / 2 > MANY then
    call('HSET', key, list[first], string.rep(' ', 1025))
  end
  call('HSET', key, unpack(list, first, last))
end

local function text(number) return string.format('%.17g', number) end

local arrivals = {}
local function arrived(name) arrivals[name] = (arrivals[name] or 0) + 1 end

-- The task that the worker that left this word (its form: rest.lua) has not settled yet, so that it has perhaps no
-- room for another: what is handed over takes its room without a claim, and its word stays.
local function unsettled_of(word)
  local terms = string.find(word, '\n', 1, true)
  local size = terms and byte(word, terms + 17)
  local last = size and sub(word, terms + 18, terms + 17 + size) or ''
  return last ~= '' and call('HEXISTS', K.ent, last) == 1 and last or nil
end

-- Behind the names of its queues a word has bytes of any kind, which are none.
local function serves(word, name)
  local at = string.find(word, ' ' .. name .. ' ', 1, true)
  return at ~= nil and at < (string.find(word, '\n', 1, true) or #word)
end

-- Of the idle workers that may be full, or that surely are not, as many are told as entries arrived. Each registration
-- is used once.
local function tell(idle, full)
  for i = 1, #idle, 2 do
    local channel, word = idle[i], idle[i + 1]
    for name, left in pairs(arrivals) do
      if left > 0 and serves(word, name) and (unsettled_of(word) ~= nil) == full then
        call('HDEL', K.wake, channel)
        if call('PUBLISH', channel, 'w') > 0 and not full then arrivals[name] = left - 1 end
        break
      end
    end
  end
end

-- Those with room come first. Of the others each is told, since any of them may have none.
local function wake_up()
  if next(arrivals) == nil then return end
  local idle = call('HGETALL', K.wake)
  tell(idle, false)
  tell(idle, true)
end

-- Tells waiting clients: of each message the channels, and what is said.
local function announce(messages)
  for i = 1, #messages do
    for channel in string.gmatch(messages[i][1], '%S+') do call('PUBLISH', channel, messages[i][2]) end
  end
end
