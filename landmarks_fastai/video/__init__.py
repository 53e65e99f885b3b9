"""Reading and writing videos and folders of frames, with exact frame times and audio."""

from landmarks_fastai.video.frame_folder import FrameFolderReader, FrameFolderWriter
from landmarks_fastai.video.io import read_video, write_video
from landmarks_fastai.video.reader import VideoFrame, VideoReader
from landmarks_fastai.video.writer import VideoWriter

__all__ = [
    "read_video",
    "write_video",
    "VideoFrame",
    "VideoReader",
    "VideoWriter",
    "FrameFolderReader",
    "FrameFolderWriter",
]
