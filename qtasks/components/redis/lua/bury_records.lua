--@include lib storage
-- bury_many of the storage. ARGV: expires_at | per item: uuid and epoch, its changes
local verdicts = {}
go_on_when_full()
for i = 2, #ARGV, 2 do
  local id, epoch = unpack_struct('>c16d', ARGV[i])
  local value, r = rec:get(id), run_of(id)
  if value and (not r or r.epoch <= epoch) then
    if r then r.owner = '' end -- a late settle of that token is rejected
    finish(id, value, r and run_pack(r) or '', 'e', 1, tonumber(ARGV[1]), ARGV[i + 1])
    verdicts[#verdicts + 1] = '1'
  else
    verdicts[#verdicts + 1] = '0'
  end
end
commit()
publish()
return table.concat(verdicts)
