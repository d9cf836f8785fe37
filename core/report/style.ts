/**
 * The report's one style sheet: light and dark by the reader's setting, one column on a phone, ink-saving on paper.
 * It loads nothing: system fonts, no images, no imports.
 */
export const STYLE = `
:root {
  color-scheme: light dark;
  --page: #fbfaf8; --card: #ffffff; --text: #22242a; --quiet: #646873; --line: #e2e0da; --accent: #1d5c8c;
  --yes: #1c7a4d; --no: #a4481c; --band: #dcdfe6; --faithful: #c05a12; --sound: #1b4f9c;
  --series-1: #1b4f9c; --series-2: #c05a12; --series-3: #1c7a4d; --series-4: #a8327b; --series-5: #7a5b00;
  --series-6: #5a4bb5; --series-7: #4d6470;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #15171b; --card: #1d2025; --text: #e7e6e2; --quiet: #a0a5b0; --line: #363a43; --accent: #7fb8e6;
    --yes: #6fcf9b; --no: #f0a077; --band: #3a3f4a; --faithful: #f3a15f; --sound: #86b6ff;
    --series-1: #86b6ff; --series-2: #f3a15f; --series-3: #6fcf9b; --series-4: #f08cc8; --series-5: #e0c25a;
    --series-6: #b3a7ff; --series-7: #a9bcc6;
  }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--text); font: 16px/1.55 system-ui, sans-serif; }
main { max-width: 60rem; margin: 0 auto; padding: 2rem 1.25rem 4rem; }
h1 { font-size: clamp(1.6rem, 5vw, 2.3rem); line-height: 1.15; margin: 0 0 .5rem; letter-spacing: -.01em; }
h2 { font-size: 1.3rem; line-height: 1.25; margin: 3rem 0 .6rem; padding-top: 1rem; border-top: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 1.4rem 0 .3rem; }
p, li { max-width: 44rem; }
ul { padding-left: 1.2rem; margin: .3rem 0; }
li { margin: .35rem 0; }
code { font: .88em ui-monospace, monospace; overflow-wrap: anywhere; }
pre { background: var(--card); border: 1px solid var(--line); border-radius: 6px; padding: .6rem .8rem; white-space: pre-wrap; }
.lead { font-size: 1.15rem; color: var(--text); }
.facts, figcaption, caption, .quiet { color: var(--quiet); font-size: .9rem; }
.notice { border-left: 4px solid var(--no); padding: .4rem .9rem; background: var(--card); }
.verdicts { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 22rem), 1fr)); }
.verdict { background: var(--card); border: 1px solid var(--line); border-top: 4px solid var(--yes); border-radius: 6px; padding: .2rem 1.1rem .8rem; }
.verdict.no { border-top-color: var(--no); }
.verdict h3 { font-size: 1.1rem; margin-top: .8rem; }
figure { margin: 1rem 0; background: var(--card); border: 1px solid var(--line); border-radius: 6px; padding: .8rem; }
figure svg { display: block; max-width: 100%; height: auto; margin: 0 auto; }
figcaption { margin-top: .5rem; }
figure h3 { margin: 0 0 .1rem; }
.wide { display: block; } .narrow { display: none; }
.panels { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 17rem), 1fr)); }
.panels figure { margin: 0; }
.key { display: flex; flex-wrap: wrap; gap: .3rem 1.2rem; align-items: center; font-size: .9rem; margin: .6rem 0; }
.key span::before { content: ""; display: inline-block; margin-right: .4rem; vertical-align: -.08em; }
.key .k-sound::before { width: .75em; height: .75em; border-radius: 50%; background: var(--sound); }
.key .k-faithful::before { width: .62em; height: .62em; border: 2px solid var(--faithful); transform: rotate(45deg); }
.key .k-band::before { width: 2em; height: .75em; border-radius: 3px; background: var(--band); }
.key .k-half::before { width: 0; height: 1em; border-left: 2px dashed var(--quiet); }
.examples { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fill, minmax(min(100%, 18rem), 1fr)); }
.pair { display: grid; grid-template-columns: 1fr 1fr; gap: .5rem; }
.pixels { width: 100%; aspect-ratio: 1; object-fit: contain; image-rendering: pixelated; border-radius: 3px; display: block; }
.pair .tag { font-size: .8rem; color: var(--quiet); text-align: center; }
.scroll { overflow-x: auto; margin: 1rem 0; }
table { border-collapse: collapse; font-size: .92rem; width: 100%; font-variant-numeric: tabular-nums; }
caption { text-align: left; padding-bottom: .4rem; }
th, td { padding: .32rem .7rem .32rem 0; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line); }
thead th { color: var(--quiet); font-weight: 600; white-space: nowrap; }
tbody th { font-weight: 600; }
.role { color: var(--quiet); font-weight: normal; font-size: .9em; }
td.number { white-space: nowrap; }
.thumb { width: 64px; }
dl { display: grid; grid-template-columns: minmax(7rem, max-content) 1fr; gap: .25rem 1rem; margin: .6rem 0; }
dt { color: var(--quiet); } dd { margin: 0; overflow-wrap: anywhere; }
a { color: var(--accent); }
:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
details { margin: 1rem 0; } summary { cursor: pointer; color: var(--accent); }
@media (max-width: 640px) {
  main { padding: 1.2rem .9rem 3rem; }
  .wide { display: none; } .narrow { display: block; }
  figure { padding: .6rem .4rem; }
  table { font-size: .86rem; } th, td { padding-right: .5rem; }
  dl { grid-template-columns: 1fr; } dd { margin-bottom: .4rem; }
}
@media print {
  :root {
    color-scheme: light;
    --page: #fff; --card: #fff; --text: #000; --quiet: #444; --line: #bbb; --accent: #000; --yes: #1c7a4d; --no: #a4481c;
    --band: #d5d8df; --faithful: #c05a12; --sound: #1b4f9c;
    --series-1: #1b4f9c; --series-2: #c05a12; --series-3: #1c7a4d; --series-4: #a8327b; --series-5: #7a5b00;
    --series-6: #5a4bb5; --series-7: #4d6470;
  }
  body { font-size: 10.5pt; } main { max-width: none; padding: 0; }
  figure, .verdict, tr, .pair { break-inside: avoid; } h2, h3 { break-after: avoid; }
  .scroll { overflow: visible; }
}
`;
