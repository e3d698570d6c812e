--@include lib storage
-- cancel_many. ARGV: reason (JSON), expires_at, changes | uuids
local verdicts = {}
for i = 4, #ARGV do
  local id = ARGV[i]
  local value, r = rec:get(id), run_of(id)
  local verdict
  if not value then
    verdict = res:get(id) and 't' or 'm'
  elseif r and r.state == 'P' then
    cancel:put(id, ARGV[1])
    verdict = 'r'
  else
    if r then r.owner = '' end -- a late settle of that token is rejected
    finish(id, value, r and run_pack(r) or '', 'c', 0, tonumber(ARGV[2]), ARGV[3])
    verdict = 'c'
  end
  verdicts[#verdicts + 1] = verdict
end
go_on_when_full()
commit()
publish()
return table.concat(verdicts)
