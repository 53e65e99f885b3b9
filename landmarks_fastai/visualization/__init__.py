"""Drawing landmarks on images, contact sheets and plots, all in one style."""
