"""Every figure: of a run, of images, of what was measured, of groups. Matplotlib without pyplot."""
