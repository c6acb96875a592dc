// A click on a poster puts a player in its place; without this, the link opens the file itself.
document.addEventListener("click", (event) => {
  const link = event.target.closest("a.open");
  if (!link || event.button || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  const player = document.createElement(link.dataset.kind);
  player.controls = true;
  player.autoplay = true;
  player.src = link.href;
  player.setAttribute("aria-label", link.textContent.trim());
  const card = link.closest("li");
  card.querySelector(".player").replaceChildren(player);
  player.focus();
});
