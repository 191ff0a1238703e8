"use strict";
const swipe = document.getElementById("swipe");
const position = document.getElementById("position");
const only = document.getElementById("only");
position.addEventListener("input", () => swipe.style.setProperty("--at", `${position.value}%`));
only.addEventListener("change", () => swipe.classList.toggle("only", only.checked));
