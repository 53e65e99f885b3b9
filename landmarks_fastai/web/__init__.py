"""The web page on which landmarks are predicted in a photo or a video."""
