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

local arrivals = {}
local function arrived(name) arrivals[name] = (arrivals[name] or 0) + 1 end

-- As many idle workers are told as entries arrived; each registration is used once.
local function wake_up()
  if next(arrivals) == nil then return end
  local idle = call('HGETALL', K.wake)
  for i = 1, #idle, 2 do
    for name, left in pairs(arrivals) do
      if left > 0 and string.find(idle[i + 1], ' ' .. name .. ' ', 1, true) then
        call('HDEL', K.wake, idle[i])
        if call('PUBLISH', idle[i], 'w') > 0 then arrivals[name] = left - 1 end
        break
      end
    end
  end
end

-- Tells waiting clients: of each message the channels, and what is said.
local function announce(messages)
  for i = 1, #messages do
    for channel in string.gmatch(messages[i][1], '%S+') do call('PUBLISH', channel, messages[i][2]) end
  end
end
