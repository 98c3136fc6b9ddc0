;;; -*- lexical-binding: t -*-
;; Edits a policy with eglot, and writes what happens to result.txt. Emacs runs it:
;; emacs --batch -l emacs.el, in a folder with policy.json.

(package-initialize)
(require 'eglot)
(add-to-list 'eglot-server-programs '(js-mode . ("sspolicy" "lsp")))
(setq eglot-confirm-server-initiated-edits nil
      eglot-send-changes-idle-time 0)

(defun say (&rest parts)
  (write-region (apply #'format parts) nil "result.txt" t))

(defun await (what f)
  "Return the first result of F that is not nil; WHAT it is."
  (let (value (end (+ (float-time) 100)))
    (while (and (not (setq value (funcall f))) (< (float-time) end))
      (accept-process-output nil 0.05))
    (or value (error "no %s: %s" what (diagnostics)))))

(defun diagnostics ()
  (flymake-start)
  (mapcar #'flymake-diagnostic-text (flymake-diagnostics)))

(defun found (text)
  (lambda () (seq-find (lambda (d) (string-match-p text d)) (diagnostics))))

(defun quiet () (null (diagnostics)))

(find-file "policy.json")
(js-mode)
(eglot--connect '(js-mode) (cons 'transient default-directory) 'eglot-lsp-server '("sspolicy" "lsp") "json")
(unless eglot--managed-mode (eglot--maybe-activate-editing-mode))
(let ((server (await "server" #'eglot-current-server)))
  (goto-char (point-min))
  (search-forward "443")
  (replace-match "70443")
  (run-hooks 'post-command-hook)
  (eglot--signal-textDocument/didChange)
  (say "diagnostic: %s\n" (await "diagnostic" (found "70443")))
  (goto-char (point-min))
  (search-forward "70443")
  (replace-match "443")
  (eglot--signal-textDocument/didChange)
  (await "end of the diagnostic" #'quiet)

  (end-of-line)
  (insert "\n\"time")
  (let* ((capf (eglot-completion-at-point))
         (all (all-completions "time" (nth 2 capf))))
    (say "completion: %s\n" (car all)))
  (delete-region (line-beginning-position) (line-end-position))
  (delete-char -1)
  (eglot--signal-textDocument/didChange)
  (await "end of the diagnostics" #'quiet)

  (goto-char (point-min))
  (search-forward "\"protocol")
  (let ((hover (jsonrpc-request server :textDocument/hover (eglot--TextDocumentPositionParams))))
    (say "hover: %s\n" (nth 2 (split-string (plist-get (plist-get hover :contents) :value) "\n"))))

  (search-forward "\"tls_trust_store\": \"")
  (eglot-rename "lab")
  (await "renamed store" (lambda () (goto-char (point-min)) (search-forward "\"name\": \"lab\"" nil t)))
  (say "renamed\n")

  (goto-char (point-min))
  (search-forward "opportunistic")
  (replace-match "oportunistic")
  (eglot--signal-textDocument/didChange)
  (await "misspelt key" (found "oportunistic"))
  (backward-char 3)
  (let* ((actions (jsonrpc-request server :textDocument/codeAction
                                   (list :textDocument (eglot--TextDocumentIdentifier)
                                         :range (list :start (eglot--pos-to-lsp-position) :end (eglot--pos-to-lsp-position))
                                         :context '(:diagnostics []))))
         (action (aref actions 0)))
    (say "action: %s\n" (plist-get action :title))
    (eglot--apply-workspace-edit (plist-get action :edit)))
  (eglot--signal-textDocument/didChange)
  (await "end of the diagnostics" #'quiet)
  (say "fixed\n")
  (set-buffer-modified-p nil)
  (eglot-shutdown server))
