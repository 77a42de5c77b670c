// The search runs in a worker, which browsers refuse to pages that are opened as files.
if (location.protocol === 'file:') {
  document.documentElement.classList.add('from-files');
}
