#!/bin/sh
exec rev
