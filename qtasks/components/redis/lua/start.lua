--@include lib storage
-- start_many. ARGV: per handle: uuid, epoch, deliveries, owner. Gives three values each: kind, value, token.
local reply, handles, ids = {}, {}, {}
for i = 1, #ARGV do
  local id, epoch, deliveries, at = unpack_struct('>c16dI4', ARGV[i])
  handles[i] = { id, epoch, string.sub(ARGV[i], at), deliveries }
  ids[i] = id
end
rec:load(ids)
run:load(ids)
for i = 1, #handles do
  local kind, value, token = start(unpack(handles[i]))
  if kind == 'S' and cancel:get(ids[i]) then
    value = value .. '\ncancel_requested\ttrue\ncancel_reason\t' .. cancel:get(ids[i])
  end
  reply[#reply + 1] = kind
  reply[#reply + 1] = type(value) == 'number' and text(value) or value or ''
  reply[#reply + 1] = token or ''
end
go_on_when_full()
commit()
return reply
