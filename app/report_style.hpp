// The style sheet and the script of a report (report.hpp), which one file carries with it.
#pragma once

namespace plumb { inline namespace v0_1 { namespace detail {

/// Of a chart in a file of its own.
inline constexpr const char* kChartStyle =
    R"(text{font:13px system-ui,sans-serif;fill:#59636e}
path{fill:none;stroke-width:2;stroke-linejoin:round;stroke-linecap:round}
.grid{stroke:#d5dae0;stroke-width:1}.hair{display:none})";

inline constexpr const char* kReportStyle =
    R"(:root{color-scheme:light dark;--ink:#1b1f24;--soft:#59636e;--line:#d5dae0;--page:#fff;
--card:#f6f8fa;--warn:#fff4d6;--edge:#b07d00;--s0:#0072b2;--s1:#d55e00;--s2:#009e73;--s3:#cc79a7;
--s4:#e69f00;--s5:#56b4e9}
@media(prefers-color-scheme:dark){:root{--ink:#e6e9ed;--soft:#9aa4af;--line:#343b44;--page:#12161b;
--card:#1b2027;--warn:#352a0b;--edge:#e0a82e;--s0:#56b4e9;--s1:#f0843c;--s2:#2fc79b;--s3:#e09cc3;
--s4:#f0b53c;--s5:#8fb7ff}}
*{box-sizing:border-box}
body{margin:0 auto;padding:1.5rem 1rem 4rem;max-width:72rem;background:var(--page);color:var(--ink);
font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
h1{font-size:1.6rem;line-height:1.25;margin:0 0 .2rem}h2{font-size:1.15rem;margin:2rem 0 .6rem}
.sub{color:var(--soft);margin:0 0 1rem}
.notice{background:var(--warn);border-left:4px solid var(--edge);padding:.6rem .9rem;margin:1rem 0;
border-radius:4px;white-space:pre-wrap}
table{border-collapse:collapse;width:100%}
th,td{text-align:left;vertical-align:top;padding:.4rem .7rem .4rem 0;
border-bottom:1px solid var(--line)}
th{color:var(--soft);font-weight:600;font-size:.85rem}
.summary td:nth-child(2){font-weight:600;white-space:nowrap;font-variant-numeric:tabular-nums}
.summary td:last-child{color:var(--soft)}
.samples{table-layout:fixed}
.samples td{white-space:pre-wrap;overflow-wrap:anywhere;font-size:.92rem}
.charts{display:grid;gap:1rem;grid-template-columns:repeat(auto-fit,minmax(min(22rem,100%),1fr))}
figure{margin:0;padding:.7rem .8rem .4rem;background:var(--card);border-radius:8px;min-width:0;
position:relative}
figcaption{font-weight:600}.legend{font-size:.85rem;color:var(--soft);min-height:1.3rem}
.legend span{margin-right:.9rem;white-space:nowrap}
.legend i{display:inline-block;width:1.1em;height:0;border-top:3px solid;vertical-align:middle;
margin-right:.35em}
.intervals{table-layout:fixed;font-size:.9rem}
.intervals th,.intervals td{border:0;padding:.25rem .5rem .25rem 0;vertical-align:middle}
.intervals th{width:30%;font-weight:500;overflow-wrap:anywhere}
.intervals td:last-child{width:32%;font-variant-numeric:tabular-nums}
.intervals small{color:var(--soft)}.intervals+.legend span{white-space:normal}
table+.charts{margin-top:1rem}
.intervals .plot svg{height:1.5rem;overflow:visible}
.intervals path{vector-effect:non-scaling-stroke}
.intervals .dot{stroke:var(--s0);stroke-width:9}
.axis div{position:relative;height:1.2rem;font-size:.75rem;color:var(--soft)}
.axis span{position:absolute;transform:translateX(-50%)}
svg{display:block;width:100%;height:auto}svg text{font-size:13px;fill:var(--soft)}
path{fill:none;stroke-width:2;stroke-linejoin:round;stroke-linecap:round}
.grid{stroke:var(--line);stroke-width:1}.mark{stroke:var(--soft);stroke-width:1}
.hair{stroke:var(--soft);stroke-dasharray:3 3}
.tip{position:absolute;pointer-events:none;background:var(--page);border:1px solid var(--line);
border-radius:4px;padding:.2rem .5rem;font-size:.8rem;white-space:nowrap;display:none;
font-variant-numeric:tabular-nums}
details{margin:1.5rem 0}summary{cursor:pointer;font-weight:600}
pre{background:var(--card);padding:.8rem;border-radius:8px;overflow:auto;font-size:.85rem}
@media(max-width:40rem){.samples thead{display:none}.samples tr{display:block;padding:.6rem 0;
border-bottom:2px solid var(--line)}.samples td{display:block;border:0;padding:.2rem 0}
.samples td::before{content:attr(data-name);display:block;color:var(--soft);font-size:.8rem;
font-weight:600}
.summary,.summary tbody{display:block}.summary tr{display:grid;grid-template-columns:1fr auto;
gap:0 .8rem;padding:.4rem 0;border-bottom:1px solid var(--line)}
.summary td{border:0;padding:0}.summary td:last-child{grid-column:1/3;font-size:.9rem}})";

// Shows every line's value at the x nearest to the pointer, where one line has a value.
inline constexpr const char* kReportScript =
    R"(document.querySelectorAll('figure:has(svg+script)').forEach(f=>{
const s=f.querySelector('svg'),t=f.querySelector('.tip'),h=f.querySelector('.hair'),
d=JSON.parse(f.querySelector('script').textContent),show=e=>{
const r=s.getBoundingClientRect(),k=d.w/r.width,px=(e.clientX-r.left)*k;
let best=null;d.s.forEach(l=>l.p.forEach(p=>{if(best===null||Math.abs(p[0]-px)<Math.abs(best[0]-px))
best=p}));if(!best)return;h.setAttribute('x1',best[0]);h.setAttribute('x2',best[0]);
h.style.display='';t.replaceChildren();const add=(x,c)=>{const n=document.createElement('div');
n.textContent=x;if(c)n.style.color=c;t.append(n)};add(d.x+' '+best[2]);
d.s.forEach(l=>{const p=l.p.find(p=>p[0]===best[0]);if(p)add((l.n?l.n+'  ':'')+p[3],l.c)});
t.style.display='block';const o=f.getBoundingClientRect(),a=r.left-o.left+best[0]/k,w=t.offsetWidth;
t.style.left=(a+12+w>f.clientWidth?Math.max(0,a-w-12):a+12)+'px';t.style.top=r.top-o.top+8+'px'};
s.addEventListener('pointermove',show);s.addEventListener('pointerdown',show);
s.addEventListener('pointerleave',()=>{t.style.display='none';h.style.display='none'})}))";

}}}  // namespace plumb::v0_1::detail
