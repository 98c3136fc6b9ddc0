-- Types in a policy as a user does, and writes what happens to result.txt. Neovim runs it:
-- nvim --clean --headless -S neovim.lua, in a folder with policy.json.

local result = assert(io.open("result.txt", "w"))

local function say(...)
  result:write(table.concat({ ... }, " "), "\n")
  result:flush()
end

local steps -- a coroutine, so that Neovim handles keys and messages between the steps

local function resume()
  local ok, problem = coroutine.resume(steps)
  if not ok then
    say("error:", tostring(problem))
    vim.cmd("cquit!")
  end
end

-- await returns the first result of f that is not nil or false.
local function await(what, f)
  local tries, timer = 0, vim.loop.new_timer()
  local value
  timer:start(0, 20, vim.schedule_wrap(function()
    if timer:is_closing() then
      return
    end
    tries = tries + 1
    local ok
    ok, value = pcall(f)
    if value or tries > 5000 then
      timer:close()
      if not ok then
        what = what .. ": " .. value
        value = nil
      end
      resume()
    end
  end))
  coroutine.yield()
  if not value then
    error("no " .. what .. " after 100 s; diagnostics: " .. vim.inspect(vim.diagnostic.get(0)))
  end
  return value
end

local function type_keys(keys)
  vim.api.nvim_input(keys)
end

local function text()
  return table.concat(vim.api.nvim_buf_get_lines(0, 0, -1, false), "\n")
end

local function diagnostic(code, text)
  return function()
    for _, d in ipairs(vim.diagnostic.get(0)) do
      if (d.code == code or (d.user_data and d.user_data.lsp.code == code)) and d.message:find(text, 1, true) then
        return d
      end
    end
  end
end

local function quiet()
  return #vim.diagnostic.get(0) == 0
end

steps = coroutine.create(function()
  vim.cmd("edit policy.json")
  local id = vim.lsp.start_client({ name = "sspolicy", cmd = { "sspolicy", "lsp" }, root_dir = vim.fn.getcwd() })
  vim.lsp.buf_attach_client(0, id)
  vim.bo.omnifunc = "v:lua.vim.lsp.omnifunc"
  await("server", function() return vim.lsp.get_client_by_id(id) end)

  type_keys("/443<CR>ciw70443<Esc>")
  local found = await("diagnostic", diagnostic("out-of-range", "70443"))
  say("diagnostic:", found.lnum + 1 .. ":" .. found.col + 1, found.message)

  type_keys("u")
  await("end of the diagnostic", quiet)

  vim.o.completeopt = "menuone"
  type_keys("o\"time<C-x><C-o>")
  await("completion", function() return vim.fn.pumvisible() == 1 end)
  say("completion:", vim.fn.complete_info({ "items" }).items[1].word)
  type_keys("<C-y>")
  await("completed key", function() return text():find('"timeout_ms": ', 1, true) end)
  type_keys("<Esc>u")
  await("end of the diagnostics", quiet)

  type_keys("/protocol<CR>")
  await("key", function() return vim.fn.expand("<cword>") == "protocol" end)
  vim.lsp.buf.hover()
  local float = await("hover", function()
    for _, w in ipairs(vim.api.nvim_list_wins()) do
      if vim.api.nvim_win_get_config(w).relative ~= "" then
        return vim.api.nvim_win_get_buf(w)
      end
    end
  end)
  say("hover:", vim.api.nvim_buf_get_lines(float, 0, 3, false)[3])

  type_keys("/tls_trust_store<CR>f:2l")
  await("name", function() return vim.fn.expand("<cword>") == "fixture" end)
  vim.lsp.buf.rename("lab")
  await("renamed store", function() return text():find('"name": "lab"', 1, true) and text():find('"tls_trust_store": "lab"', 1, true) end)
  say("renamed")

  type_keys(":%s/opportunistic/oportunistic/<CR>")
  found = await("misspelt key", diagnostic("unknown-key", "oportunistic"))
  vim.api.nvim_win_set_cursor(0, { found.lnum + 1, found.col + 1 })
  vim.ui.select = function(actions, options, choose)
    say("action:", (options.format_item(actions[1])))
    choose(actions[1])
  end
  vim.lsp.buf.code_action()
  await("fixed key", function() return text():find('"opportunistic": true', 1, true) end)
  await("end of the diagnostics", quiet)
  say("fixed")

  type_keys(":%s/^  *//<CR>")
  await("layout without indentation", function() return not text():find("\n  ") end)
  local format = vim.lsp.buf.format or vim.lsp.buf.formatting
  format({ async = true })
  await("formatted text", function() return text():find("\n      ") end)
  say("formatted")

  vim.lsp.stop_client(id)
  await("end of the server", function() return vim.lsp.client_is_stopped(id) end)
  say("done")
  vim.cmd("qall!")
end)

vim.schedule(resume)
