/** The style of GET /docs. It is inlined and allowed by its hash, so the page needs nothing from anywhere. */
export const docsStyle = `
:root{color-scheme:light dark;--ink:#1b2330;--soft:#5a6675;--line:#dde3ea;--paper:#fff;--panel:#f5f7fa;--link:#0b62c4;
--get:#0b6e4f;--post:#0b62c4;--put:#8a5a00;--delete:#b3261e}
@media (prefers-color-scheme:dark){:root{--ink:#e6ebf2;--soft:#9aa7b8;--line:#2c3644;--paper:#10161f;--panel:#18202c;--link:#7db4ff;
--get:#5fd0a4;--post:#7db4ff;--put:#e5b567;--delete:#ff8a80}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.55 system-ui,sans-serif}
main,header,nav{max-width:60rem;margin:0 auto;padding:0 1rem}
header{padding-top:1.5rem}
h1{font-size:1.6rem;margin:0}
h2{font-size:1.15rem;margin:2.2rem 0 .6rem;padding-top:.4rem;border-top:1px solid var(--line)}
h3{font-size:.8rem;margin:1.1rem 0 .3rem;color:var(--soft);text-transform:uppercase;letter-spacing:.06em}
p{margin:.4rem 0}
a{color:var(--link)}
nav ul{display:flex;flex-wrap:wrap;gap:.5rem;list-style:none;padding:0;margin:1rem 0}
nav a{display:inline-block;padding:.45rem .8rem;border:1px solid var(--line);border-radius:2rem;text-decoration:none}
details.op{border:1px solid var(--line);border-radius:.6rem;margin:.5rem 0;background:var(--panel)}
details.op>summary{display:flex;flex-wrap:wrap;gap:.2rem .7rem;align-items:baseline;padding:.7rem .9rem;cursor:pointer;list-style:none}
details.op>summary::-webkit-details-marker{display:none}
details.op>div{padding:0 .9rem .9rem;border-top:1px solid var(--line);background:var(--paper);border-radius:0 0 .6rem .6rem}
.method{font:700 .8rem/1 ui-monospace,monospace;min-width:3.6rem}
.get{color:var(--get)}.post{color:var(--post)}.put{color:var(--put)}.delete{color:var(--delete)}
code,pre,.path{font:.86rem/1.5 ui-monospace,monospace}
.path{font-weight:600;overflow-wrap:anywhere}
.what{color:var(--soft);flex-basis:100%}
.badge{display:inline-block;font-size:.78rem;padding:.05rem .5rem;margin:.1rem .3rem .1rem 0;border:1px solid var(--line);border-radius:1rem}
pre{overflow-x:auto;background:var(--panel);padding:.7rem;border-radius:.5rem;margin:.3rem 0}
.scroll{overflow-x:auto}
table{border-collapse:collapse;width:100%}
th,td{text-align:left;vertical-align:top;padding:.35rem .6rem .35rem 0;border-bottom:1px solid var(--line)}
th{font-size:.8rem;color:var(--soft);font-weight:600}
footer{padding:2rem 1rem;text-align:center;color:var(--soft)}
`;
