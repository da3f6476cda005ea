/** Style and script of the documentation page. Plain text, so that the page's policy can name both by their hashes. */

export const STYLE = `
:root { --bg: #fff; --fg: #1b1f24; --soft: #5b6470; --line: #e3e6ea; --panel: #f6f7f9; --accent: #2450c8; --get: #1c7a4d; --post: #2450c8; --delete: #b3261e; --put: #9a5b00; --code: #f2f4f7; }
@media (prefers-color-scheme: dark) {
  :root { --bg: #12151a; --fg: #e4e7eb; --soft: #98a1ad; --line: #2a2f37; --panel: #181c22; --accent: #8fb0ff; --get: #6fd3a0; --post: #8fb0ff; --delete: #ff9b93; --put: #e8b25c; --code: #1e232b; }
}
* { box-sizing: border-box; }
html { scroll-behavior: smooth; scroll-padding-top: 1rem; }
@media (prefers-reduced-motion: reduce) { html { scroll-behavior: auto; } }
body { margin: 0; display: grid; grid-template-columns: 19rem minmax(0, 1fr); background: var(--bg); color: var(--fg); font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
a { color: var(--accent); text-decoration: none; }
a:hover { text-decoration: underline; }
:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; border-radius: 3px; }
code, pre { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace; font-size: .875em; }
p code, dd code, td code, .reply code { background: var(--code); padding: .1em .35em; border-radius: 4px; overflow-wrap: anywhere; }
nav { position: sticky; top: 0; height: 100vh; overflow-y: auto; padding: 1.5rem 1rem; background: var(--panel); border-right: 1px solid var(--line); font-size: .875rem; }
nav .brand { display: block; font-weight: 650; font-size: 1rem; color: var(--fg); margin-bottom: .5rem; }
nav .brand small { margin-left: .5rem; color: var(--soft); font-weight: 400; }
nav summary { display: none; }
nav h2 { margin: 1.25rem 0 .35rem; font-size: .75rem; letter-spacing: .04em; text-transform: uppercase; }
nav h2 a { color: var(--soft); }
nav ul { list-style: none; margin: 0; padding: 0; }
nav li a { display: flex; gap: .5rem; align-items: baseline; padding: .22rem .4rem; border-radius: 5px; color: var(--fg); }
nav li a:hover { background: var(--line); text-decoration: none; }
nav li span { overflow-wrap: anywhere; }
.m { flex: none; display: inline-block; width: 4.6em; font-size: .72em; letter-spacing: .03em; }
.m.get { color: var(--get); } .m.post { color: var(--post); } .m.delete { color: var(--delete); } .m.put, .m.patch { color: var(--put); }
main { max-width: 56rem; width: 100%; padding: 2.5rem clamp(1rem, 4vw, 3.5rem) 6rem; }
h1 { margin: 0; font-size: 2rem; line-height: 1.2; letter-spacing: -.015em; }
.lead { margin: .4rem 0 1.75rem; font-size: 1.15rem; color: var(--soft); }
section > h2 { margin: 3.5rem 0 .25rem; font-size: 1.4rem; letter-spacing: -.01em; }
section > p { margin: 0 0 1rem; color: var(--soft); }
article { padding: 1.75rem 0; border-top: 1px solid var(--line); }
h3 { display: flex; flex-wrap: wrap; gap: .6rem; align-items: baseline; margin: 0 0 .5rem; font-size: 1.05rem; }
h3 .m { width: auto; font-size: .8rem; padding: .1rem .5rem; border: 1px solid currentColor; border-radius: 5px; }
h3 code { font-size: 1rem; overflow-wrap: anywhere; }
.anchor { opacity: 0; }
h3:hover .anchor, .anchor:focus-visible { opacity: 1; }
.scope { color: var(--soft); }
h4 { margin: 1.4rem 0 .5rem; font-size: .8rem; letter-spacing: .04em; text-transform: uppercase; color: var(--soft); }
dl { margin: 0; padding: 0; }
dt { padding-top: .55rem; }
dt + dd { margin-top: .15rem; }
dt code { font-weight: 600; }
dt i { font-style: normal; font-size: .85rem; color: var(--soft); }
dt em { font-style: normal; font-size: .75rem; color: var(--delete); }
dd { margin: 0; padding-bottom: .55rem; border-bottom: 1px solid var(--line); font-size: .92rem; }
dl > dd:last-child { border-bottom: 0; }
dd p { margin: .1rem 0; }
dd > dl { margin: .35rem 0 0; padding-left: 1rem; border-left: 2px solid var(--line); }
.notes { display: flex; flex-wrap: wrap; gap: .15rem .9rem; color: var(--soft); font-size: .85rem; }
figure { position: relative; margin: 0 0 .75rem; }
figcaption { font-size: .85rem; color: var(--soft); margin-bottom: .25rem; }
pre { margin: 0; padding: .9rem 1rem; background: var(--code); border: 1px solid var(--line); border-radius: 8px; overflow-x: auto; line-height: 1.5; }
.copy { position: absolute; right: .5rem; bottom: .5rem; padding: .2rem .6rem; font: inherit; font-size: .78rem; color: var(--fg); background: var(--bg); border: 1px solid var(--line); border-radius: 6px; cursor: pointer; }
.copy:hover { border-color: var(--accent); }
.reply { margin: .35rem 0; font-size: .92rem; }
details.reply { border: 1px solid var(--line); border-radius: 8px; }
details.reply > summary { padding: .45rem .8rem; cursor: pointer; }
details.reply[open] > summary { border-bottom: 1px solid var(--line); }
details.reply > dl, details.reply > .scroll { padding: .2rem .9rem .6rem; }
p.reply { padding: .45rem .8rem; border: 1px solid var(--line); border-radius: 8px; }
.ok { color: var(--get); margin-right: .3rem; }
.scroll { overflow-x: auto; }
table { width: 100%; border-collapse: collapse; font-size: .88rem; }
th { text-align: left; font-weight: 600; color: var(--soft); }
th, td { padding: .4rem .7rem .4rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
tr:last-child td { border-bottom: 0; }
td:nth-child(2) { white-space: nowrap; }
@media (max-width: 60rem) {
  body { grid-template-columns: minmax(0, 1fr); }
  nav { position: static; height: auto; border-right: 0; border-bottom: 1px solid var(--line); padding: 1rem; }
  nav summary { display: list-item; cursor: pointer; color: var(--soft); }
  main { padding-top: 1.5rem; }
}
@media print { nav, .copy { display: none; } body { display: block; } }
`;

export const COPY_SCRIPT = `
if (matchMedia("(max-width: 60rem)").matches) document.querySelector("nav details").removeAttribute("open");
document.addEventListener("click", async (event) => {
  const button = event.target instanceof Element ? event.target.closest(".copy") : null;
  const text = button?.parentElement?.querySelector("code")?.textContent;
  if (!text) return;
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
  } catch {
    getSelection()?.selectAllChildren(button.parentElement.querySelector("code"));
    button.textContent = "Press Ctrl+C";
  }
  setTimeout(() => { button.textContent = "Copy"; }, 1500);
});
`;
