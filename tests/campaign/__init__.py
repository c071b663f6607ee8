"""A campaign against this package: kills, wrong settings, damaged files and files with code, made by kind from a seed.

It is no part of the tests that run on each change: ``make campaign`` takes an hour of one core.
"""
import os
import warnings

os.environ['CUDA_VISIBLE_DEVICES'] = ''                  # before torch is there: a process that has used a GPU cannot fork
warnings.filterwarnings('ignore')
