"""Pages for people below `/-/`, from templates, in several languages, live where that helps.

How to add one:

1. A view calls `rendering.page("name.html", row=…)`, or `live.live_page` for one that changes while it is open.
2. The template extends `base.html` and fills `title` and `content`. Every text stands in `_("…")`; a file in
   `locale/ru/` translates it. Macros for badges, messages, questions and pages of lists are in `parts.html`. There is
   no inline style and no script; classes are in `static/site.css`.
3. Forms are `<button form="act" formaction="…">`, or have `<input type="hidden" name="form" value="{{ frame.form }}">`;
   readers without a session get none (`{% if frame.form %}`). The view of the action ends with
   `flashes.redirect_saying` if `request.mimetype == FORM`.
4. Scripts are modules in `static/`, named in the block `head` with `nonce="{{ frame.nonce }}" crossorigin="anonymous"`,
   and ask the platform by `request` of `page.js`, below the page's `scope`; `times.js` and `morph.js` are for parts
   that they put in.
5. The route has a rule with `is_page` in `auth/rules.py`, and a row in `tests/support/cabinet.py`: axe looks at it in
   both languages, in light and in dark, on a phone.

`problem_page` shows errors, `flashes` what was done, `words` conditions. What comes from the daemon is a reason and a
message in English: `meanings` and `advice` say in every language what each reason means and what to do, and
`problem_words` the same of problems; `explained` of `parts.html` shows both before the message.
"""
