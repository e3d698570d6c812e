-- The time, of the server that all share. The short ways come before it: they do not need it.
local time = call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1e6
